"""imresize against a slow implementation of MATLAB's rule, and against the Set5 benchmark where it is at hand."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mambair.imaging.color import rgb_to_y
from mambair.imaging.files import read_image
from mambair.imaging.resize import crop_to_multiple, imresize

TEST_DATA = os.environ.get("MAMBAIR_TEST_DATA")


def kernel(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return (1.5 * x - 2.5) * x * x + 1
    if x <= 2:
        return ((-0.5 * x + 2.5) * x - 4) * x + 2
    return 0.0


def slow_line(line: list[float], target: int, scale: float) -> list[float]:
    """One line resized by the rule as MATLAB's manual words it: positions from 1, mirrored at both ends."""
    length, result = len(line), []
    width = 4 / scale if scale < 1 else 4
    for index in range(1, target + 1):
        centre = index / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(centre - width / 2)
        total = weight_sum = 0.0
        for position in range(left, left + math.ceil(width) + 2):
            weight = scale * kernel(scale * (centre - position)) if scale < 1 else kernel(centre - position)
            mirrored = position
            while not 1 <= mirrored <= length:
                mirrored = 1 - mirrored if mirrored < 1 else 2 * length + 1 - mirrored
            total += weight * line[mirrored - 1]
            weight_sum += weight
        result.append(total / weight_sum)
    return result


def slow_imresize(plane: np.ndarray, scale: float, rounded: bool) -> np.ndarray:
    """Rows first, then columns; 8-bit rounding after each if `rounded`."""

    def settle(values: np.ndarray) -> np.ndarray:
        return np.clip(np.floor(values + 0.5), 0, 255) if rounded else values

    height, width = (math.ceil(scale * length) for length in plane.shape)
    rows = settle(np.array([slow_line(list(column), height, scale) for column in plane.T.astype(float)]).T)
    return settle(np.array([slow_line(list(row), width, scale) for row in rows]))


@pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 1 / 4, 0.37, 1, math.pi / 2, 2, 3, 4])
def test_matches_the_rule(scale: float) -> None:
    image = np.random.default_rng(1).integers(0, 256, (23, 17, 3), dtype=np.uint8)
    resized = imresize(image, scale)
    assert resized.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(resized[..., channel], slow_imresize(image[..., channel], scale, rounded=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_are_neither_rounded_nor_clipped(dtype) -> None:
    image = np.random.default_rng(2).random((14, 19)).astype(dtype)
    image[4:8, 4:8] = 1
    resized = imresize(image, 2)
    assert resized.dtype == dtype
    assert resized.max() > 1
    tolerance = 1e-6 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(resized, slow_imresize(image, 2, rounded=False), atol=tolerance)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    scale=st.floats(0.05, 5),
    seed=st.integers(0, 99),
)
def test_any_size_and_scale(height: int, width: int, scale: float, seed: int) -> None:
    plane = np.random.default_rng(seed).random((height, width))
    np.testing.assert_allclose(imresize(plane, scale), slow_imresize(plane, scale, rounded=False), atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20), target=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_a_target_size_is_reached_and_keeps_constants(height: int, width: int, target: tuple[int, int]) -> None:
    resized = imresize(np.full((height, width, 2), 77, np.uint8), target)
    assert resized.shape == (*target, 2)
    assert (resized == 77).all()


def test_sixteen_bits_keep_their_range() -> None:
    image = np.zeros((8, 8, 1), np.uint16)
    image[2:6, 2:6] = 65535
    resized = imresize(image, 2)
    assert resized.dtype == np.uint16
    assert resized.max() == 65535
    assert resized.min() == 0


@pytest.mark.parametrize("scale", [0, -1, math.nan, math.inf, (0, 3), (3,)])
def test_impossible_scales(scale) -> None:
    with pytest.raises(ValueError, match="expected a"):
        imresize(np.zeros((4, 4), np.uint8), scale)


def test_crop_to_multiple() -> None:
    assert crop_to_multiple(np.zeros((11, 9, 3)), 4).shape == (8, 8, 3)
    assert crop_to_multiple(np.zeros((8, 8)), 4).shape == (8, 8)


@pytest.mark.skipif(TEST_DATA is None, reason="MAMBAIR_TEST_DATA names no folder with Set5/HR and Set5/LR_bicubic")
@pytest.mark.parametrize(("scale", "bicubic"), [(2, 33.67), (3, 30.40), (4, 28.43)])
def test_set5_pixel_by_pixel(scale: int, bicubic: float) -> None:
    root = Path(TEST_DATA) / "Set5"
    psnr = []
    for path in sorted((root / "HR").glob("*.png")):
        truth = crop_to_multiple(read_image(path), scale)
        small = read_image(root / "LR_bicubic" / f"X{scale}" / f"{path.stem}x{scale}.png")
        np.testing.assert_array_equal(imresize(truth, 1 / scale), small)
        difference = (rgb_to_y(imresize(small, scale)) - rgb_to_y(truth))[scale:-scale, scale:-scale]
        psnr.append(10 * math.log10(255**2 / np.mean(difference**2)))
    assert len(psnr) == 5
    assert np.mean(psnr) == pytest.approx(bicubic, abs=0.005)
