"""Estimated noise against noise that was added, on photos and on flat images."""

import numpy as np
import pytest
import skimage.data

from mambair.data.noise_level import noise_level

PHOTOS = {name: getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee")}


def noisy(image: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(np.rint(image + rng.normal(0, sigma, image.shape)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("sigma", [5, 10, 15, 25, 50])
@pytest.mark.parametrize("name", PHOTOS)
def test_added_noise_is_found(name: str, sigma: int) -> None:
    assert noise_level(noisy(PHOTOS[name], sigma)) == pytest.approx(sigma, abs=1 + 0.08 * sigma)


@pytest.mark.parametrize("name", PHOTOS)
def test_clean_photos_have_little(name: str) -> None:
    level = noise_level(PHOTOS[name])
    assert level is not None and level < 3


def test_gray_photos_and_large_ones() -> None:
    gray = np.ascontiguousarray(skimage.data.camera()[:, :, None])
    assert noise_level(noisy(gray, 20)) == pytest.approx(20, abs=2)
    wide = np.full((200, 5000, 3), 120, np.uint8)
    assert noise_level(noisy(wide, 12)) == pytest.approx(12, rel=0.06)


@pytest.mark.parametrize("shape", [(1, 1, 3), (15, 400, 3), (40, 20, 1)])
def test_too_small_to_tell(shape: tuple[int, ...]) -> None:
    assert noise_level(noisy(np.full(shape, 128, np.uint8), 10)) is None


def test_what_is_clipped_tells_nothing() -> None:
    assert noise_level(np.full((100, 100, 3), 255, np.uint8)) is None
    half = np.full((160, 160, 3), 128, np.uint8)
    half[:, :80] = 255
    assert noise_level(noisy(half, 15)) == pytest.approx(15, rel=0.15)
