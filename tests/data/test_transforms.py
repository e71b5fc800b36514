"""Patches, symmetries and normalisation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mambair.data.transforms import Symmetries, ToTensor, Window, random_window
from mambair.errors import UserError
from mambair.imaging.color import rgb_to_y


def test_random_windows_reach_every_place_equally_often() -> None:
    rng = np.random.default_rng(0)
    counts = np.zeros((4, 3), int)
    for _ in range(2400):
        window = random_window(8, 7, 5, rng, "a.png")
        assert window.cut(np.zeros((8, 7, 3))).shape == (5, 5, 3)
        counts[window.top, window.left] += 1
    assert counts.min() > 140
    assert counts.max() < 260


def test_patches_larger_than_the_image_name_the_file() -> None:
    with pytest.raises(UserError, match=r"a\.png: 8x4 pixels are too few for patches of 5x5"):
        random_window(8, 4, 5, np.random.default_rng(0), "a.png")


@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(0, 20), st.sampled_from([1, 2, 3, 8, 16]), st.integers(0, 999)
)
def test_widened_windows(height: int, width: int, margin: int, alignment: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    top, left = int(rng.integers(height)), int(rng.integers(width))
    window = Window(top, left, int(rng.integers(1, height - top + 1)), int(rng.integers(1, width - left + 1)))
    outer = window.widened(margin, alignment, height, width)
    assert outer.top % alignment == outer.left % alignment == 0
    for start, size, outer_start, outer_size, length in (
        (window.top, window.height, outer.top, outer.height, height),
        (window.left, window.width, outer.left, outer.width, width),
    ):
        end, outer_end = start + size, outer_start + outer_size
        assert 0 <= outer_start <= max(0, start - margin)
        assert min(length, end + margin) <= outer_end <= length
        assert outer_end % alignment == 0 or outer_end == length


def test_all_eight_symmetries_are_drawn_and_keep_pairs_together() -> None:
    image = np.arange(6).reshape(2, 3, 1)
    rng = np.random.default_rng(0)
    seen: dict[bytes, int] = {}
    for _ in range(800):
        first, second = Symmetries(hflip=True, rotate=True).draw(rng, image, image.repeat(2, 0).repeat(2, 1))
        np.testing.assert_array_equal(first.repeat(2, 0).repeat(2, 1), second)
        key = bytes(first.shape) + first.astype(np.uint8).tobytes()
        seen[key] = seen.get(key, 0) + 1
    assert len(seen) == 8
    assert min(seen.values()) > 60


@pytest.mark.parametrize(
    ("symmetries", "count"), [(Symmetries(), 1), (Symmetries(True), 2), (Symmetries(False, True), 4)]
)
def test_only_the_chosen_symmetries_are_drawn(symmetries: Symmetries, count: int) -> None:
    image = np.arange(6).reshape(2, 3, 1)
    rng = np.random.default_rng(0)
    results = {str(symmetries.draw(rng, image)[0].tolist()) for _ in range(100)}
    assert len(results) == count


def test_to_tensor() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    plain = ToTensor()(image[::-1])
    assert plain.is_contiguous()
    np.testing.assert_allclose(plain.numpy(), image[::-1].transpose(2, 0, 1) / 255, atol=1e-7)
    shifted = ToTensor(mean=[0.5, 0.4, 0.3], std=[1, 2, 4])(image)
    expected = (image / 255 - [0.5, 0.4, 0.3]) / [1, 2, 4]
    np.testing.assert_allclose(shifted.numpy(), expected.transpose(2, 0, 1), atol=1e-6)
    luma = ToTensor(luma=True)(image)
    assert luma.shape == (1, 5, 4)
    np.testing.assert_allclose(luma[0].numpy(), rgb_to_y(image) / 255, atol=1e-7)
