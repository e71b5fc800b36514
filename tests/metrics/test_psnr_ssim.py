"""PSNR and SSIM against slow, independent computations."""

import math

import numpy as np
import pytest

from mambair.errors import UserError
from mambair.metrics import calculate_psnr, calculate_ssim
from mambair.registry import METRICS


def noisy_pair(channels: int = 3, height: int = 31, width: int = 27) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    smooth = np.cumsum(rng.normal(0, 6, (height, width, channels)), axis=1) + 128
    pair = smooth, smooth + rng.normal(0, 12, smooth.shape)
    return tuple(np.clip(array, 0, 255).astype(np.uint8) for array in pair)


def luma(image: np.ndarray) -> np.ndarray:
    """BT.601 luma of 8-bit RGB, from the coefficients of the standard."""
    red, green, blue = (image[:, :, channel].astype(np.float64) for channel in range(3))
    return 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255


def slow_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """SSIM of two (H, W) planes, one window at a time."""
    offsets = np.arange(11) - 5
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    values = []
    for row in range(first.shape[0] - 10):
        for column in range(first.shape[1] - 10):
            x = first[row : row + 11, column : column + 11].astype(np.float64)
            y = second[row : row + 11, column : column + 11].astype(np.float64)
            mean_x, mean_y = (window * x).sum(), (window * y).sum()
            variance_x = (window * (x - mean_x) ** 2).sum()
            variance_y = (window * (y - mean_y) ** 2).sum()
            covariance = (window * (x - mean_x) * (y - mean_y)).sum()
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            values.append(
                (2 * mean_x * mean_y + c1)
                * (2 * covariance + c2)
                / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))
            )
    return float(np.mean(values))


@pytest.mark.parametrize("crop", [0, 2])
def test_psnr_on_rgb_and_luma(crop: int) -> None:
    image, reference = noisy_pair()
    window = (slice(crop, image.shape[0] - crop), slice(crop, image.shape[1] - crop))
    mse = np.mean((image[window].astype(float) - reference[window]) ** 2)
    assert calculate_psnr(image, reference, crop) == pytest.approx(10 * math.log10(65025 / mse), abs=1e-10)
    mse = np.mean((luma(image)[window] - luma(reference)[window]) ** 2)
    assert calculate_psnr(image, reference, crop, True) == pytest.approx(10 * math.log10(65025 / mse), abs=1e-10)


@pytest.mark.parametrize("crop", [0, 3])
def test_ssim_on_rgb_luma_and_gray(crop: int) -> None:
    image, reference = noisy_pair()
    window = (slice(crop, image.shape[0] - crop), slice(crop, image.shape[1] - crop))
    channels = [slow_ssim(image[window][..., channel], reference[window][..., channel]) for channel in range(3)]
    assert calculate_ssim(image, reference, crop) == pytest.approx(np.mean(channels), abs=1e-9)
    expected = slow_ssim(luma(image)[window], luma(reference)[window])
    assert calculate_ssim(image, reference, crop, test_y_channel=True) == pytest.approx(expected, abs=1e-9)
    gray = image[:, :, :1], reference[:, :, :1]
    assert calculate_ssim(*gray, crop) == pytest.approx(channels[0], abs=1e-9)
    assert calculate_ssim(*gray, crop, test_y_channel=True) == calculate_ssim(*gray, crop)


def test_luma_spans_16_to_235() -> None:
    black, white = np.zeros((12, 12, 3), np.uint8), np.full((12, 12, 3), 255, np.uint8)
    assert calculate_psnr(black, white, 0, test_y_channel=True) == pytest.approx(20 * math.log10(255 / 219), abs=1e-9)


def test_equal_images() -> None:
    image, _ = noisy_pair()
    assert calculate_psnr(image, image, 2) == math.inf
    assert calculate_ssim(image, image, 2) == pytest.approx(1.0)


@pytest.mark.parametrize("metric", [calculate_psnr, calculate_ssim])
def test_what_cannot_be_compared_is_refused(metric) -> None:
    image, reference = noisy_pair()
    with pytest.raises(UserError, match="one size"):
        metric(image, reference[:-1])
    with pytest.raises(UserError, match="uint8"):
        metric(image / 255.0, reference / 255.0)
    with pytest.raises(UserError, match="crop_border 14"):
        metric(image, reference, 14)


def test_ssim_needs_one_window() -> None:
    image, reference = noisy_pair(height=14, width=14)
    with pytest.raises(UserError, match="11x11"):
        calculate_ssim(image, reference, 2)


def test_metrics_are_registered_and_say_which_way_is_better() -> None:
    image, reference = noisy_pair()
    options = {"type": "calculate_psnr", "crop_border": 2, "test_y_channel": True}
    assert METRICS.build(options, image=image, reference=reference) == calculate_psnr(image, reference, 2, True)
    assert METRICS.get("calculate_psnr").higher_is_better
    assert METRICS.get("calculate_ssim").higher_is_better
