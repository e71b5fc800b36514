import cv2
import numpy as np
import torch

from mambair.data.degradations.blur_kernels import gaussian_kernel, identity_kernel
from mambair.data.degradations.filters import filter_images, sharpen


def test_each_image_gets_its_own_kernel_as_opencv_does_it():
    rng = np.random.default_rng(0)
    images = rng.random((3, 3, 33, 41), dtype=np.float32)
    kernels = [identity_kernel(9), gaussian_kernel(9, 2.0, 1.0, 0.7), rng.random((9, 9), dtype=np.float32)]
    filtered = filter_images(torch.from_numpy(images), torch.from_numpy(np.stack(kernels)))
    for image, kernel, result in zip(images, kernels, filtered.numpy(), strict=True):
        expected = cv2.filter2D(image.transpose(1, 2, 0), -1, kernel, borderType=cv2.BORDER_REFLECT_101)
        np.testing.assert_allclose(result.transpose(1, 2, 0), expected, atol=2e-5)


def reference_sharpen(image: np.ndarray) -> np.ndarray:
    """Unsharp masking with OpenCV, float HxWx3 in [0, 1]."""
    blurred = cv2.GaussianBlur(image, (51, 51), 0)
    difference = image - blurred
    region = (np.abs(difference) * 255 > 10).astype(np.float32)
    soft = cv2.GaussianBlur(region, (51, 51), 0)
    return soft * np.clip(image + 0.5 * difference, 0, 1) + (1 - soft) * image


def test_sharpening_agrees_with_opencv():
    image = cv2.resize(np.random.default_rng(0).random((9, 11, 3), dtype=np.float32), (88, 72))
    result = sharpen(torch.from_numpy(image).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(result, reference_sharpen(image), atol=2e-3)
    assert np.abs(result - image).max() > 0.05


def test_sharpening_leaves_flat_regions_alone():
    image = torch.full((1, 3, 64, 64), 0.4)
    torch.testing.assert_close(sharpen(image), image)
    faint = image + 5 / 255 * (torch.arange(64) % 2)  # below the threshold of 10
    torch.testing.assert_close(sharpen(faint), faint)


def test_sharpening_takes_images_smaller_than_its_window():
    assert sharpen(torch.rand(2, 3, 16, 20)).shape == (2, 3, 16, 20)
