"""The batched JPEG against OpenCV's encoder and decoder on a photo."""

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from mambair.data.degradations.jpeg_batch import jpeg_batch


def as_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


def as_array(images: torch.Tensor) -> np.ndarray:
    return (images[0] * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((first.astype(float) - second) ** 2))


def opencv_jpeg(image: np.ndarray, quality: int) -> tuple[np.ndarray, int]:
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1], len(encoded)


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 95])
def test_distortion_and_file_size_are_opencvs(quality):
    photo = skimage.data.astronaut()[:203, 100:333]
    ours = as_array(jpeg_batch(as_tensor(photo), torch.tensor([float(quality)])))
    theirs, size = opencv_jpeg(photo, quality)
    assert psnr(ours, photo) == pytest.approx(psnr(theirs, photo), abs=0.1)
    assert psnr(ours, theirs) > psnr(theirs, photo) + 8
    # Compressed again at the same quality, both have about the same information in them.
    assert opencv_jpeg(ours, quality)[1] == pytest.approx(size, rel=0.03)


def test_each_image_has_its_own_quality():
    photo = as_tensor(skimage.data.astronaut()[:64, :64])
    qualities = torch.tensor([20.0, 80.0])
    together = jpeg_batch(photo.repeat(2, 1, 1, 1), qualities)
    for quality, image in zip(qualities, together, strict=True):
        torch.testing.assert_close(image[None], jpeg_batch(photo, quality[None]))


def test_result_lies_on_the_255_grid():
    levels = jpeg_batch(torch.rand(1, 3, 17, 23), torch.tensor([37.6])) * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)


def test_flat_gray_is_kept_at_the_top_quality():
    image = torch.full((1, 3, 24, 40), 100 / 255)
    torch.testing.assert_close(jpeg_batch(image, torch.tensor([100.0])), image)
