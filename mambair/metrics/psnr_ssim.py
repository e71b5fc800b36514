"""PSNR and SSIM as the field reports them: on uint8 images, border cropped, RGB or unrounded BT.601 luma."""

import math

import numpy as np
from skimage.metrics import structural_similarity

from mambair.errors import UserError
from mambair.imaging.color import rgb_to_y
from mambair.registry import METRICS

_SSIM_WINDOW = 11


def cropped_pair(image: np.ndarray, reference: np.ndarray, crop_border: int) -> tuple[np.ndarray, np.ndarray]:
    """Both images without `crop_border` pixels on each side; UserError where they cannot be compared."""
    for name, array in (("image", image), ("reference", reference)):
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3):
            raise UserError(
                f"metrics compare uint8 images of shape (H, W, 3) or (H, W, 1), but the {name} is "
                f"{array.dtype} {array.shape}; convert it with mambair.imaging"
            )
    if image.shape != reference.shape:
        raise UserError(
            f"metrics need two images of one size, got {image.shape} and reference {reference.shape}; "
            "check the scale and that the ground truth belongs to this image"
        )
    if crop_border < 0 or min(image.shape[:2]) <= 2 * crop_border:
        raise UserError(f"crop_border {crop_border} leaves nothing of an image of {image.shape[:2]} pixels; lower it")
    rows, columns = (slice(crop_border, length - crop_border) for length in image.shape[:2])
    return image[rows, columns], reference[rows, columns]


def _comparable(
    image: np.ndarray, reference: np.ndarray, crop_border: int, test_y_channel: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Both images cropped, as float64 (H, W, C) on the scale 0..255, C = 1 where luma is asked for."""
    pair = cropped_pair(image, reference, crop_border)
    if test_y_channel and image.shape[2] == 3:
        return rgb_to_y(pair[0])[:, :, None], rgb_to_y(pair[1])[:, :, None]
    return pair[0].astype(np.float64), pair[1].astype(np.float64)


@METRICS.register(ignored_keys=("better",), higher_is_better=True)
def calculate_psnr(
    image: np.ndarray, reference: np.ndarray, crop_border: int = 0, test_y_channel: bool = False
) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(255^2 / MSE); inf for equal images.

    Args:
        image, reference: uint8, (H, W, 3) RGB or (H, W, 1) gray.
        crop_border: pixels left out on each side.
        test_y_channel: compare the BT.601 luma of colour images (MATLAB's rgb2ycbcr, not rounded).

    Raises:
        UserError: arrays that cannot be compared.
    """
    first, second = _comparable(image, reference, crop_border, test_y_channel)
    mean_square = float(np.mean((first - second) ** 2))
    return math.inf if mean_square == 0 else 10 * math.log10(255**2 / mean_square)


@METRICS.register(ignored_keys=("better",), higher_is_better=True, smallest_side=_SSIM_WINDOW)
def calculate_ssim(
    image: np.ndarray, reference: np.ndarray, crop_border: int = 0, test_y_channel: bool = False
) -> float:
    """Structural similarity (Wang et al., 2004), mean over pixels and channels; 1 for equal images.

    11x11 Gaussian window of sigma 1.5 where it fits entirely, K1 = 0.01, K2 = 0.03, population covariances.
    Arguments and errors as `calculate_psnr`; at least 11x11 pixels must remain after cropping.
    """
    first, second = _comparable(image, reference, crop_border, test_y_channel)
    if min(first.shape[:2]) < _SSIM_WINDOW:
        raise UserError(
            f"SSIM needs at least {_SSIM_WINDOW}x{_SSIM_WINDOW} pixels, got {first.shape[:2]} after cropping "
            f"{crop_border}; leave the image out"
        )
    return float(
        structural_similarity(
            first, second, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
    )
