"""Low-quality images made on the fly: statistics, the fixed test stream, and patches that degrade as in their image."""

from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st

from mambair.contracts import RandomNumbers
from mambair.data.builders import BuildContext, build_dataset
from mambair.data.synthesis import BicubicReduction, Degradations, GaussianNoise, JpegArtifacts, degrade_window
from mambair.data.transforms import Window
from mambair.errors import UserError
from mambair.imaging.jpeg import jpeg_compress
from mambair.imaging.resize import imresize
from mambair.options.dataset_schema import DatasetOptions
from mambair.registry import DEGRADATIONS

PHOTO = skimage.data.astronaut()[:119, 150:251]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_noise_has_its_sigma_and_is_neither_clipped_nor_rounded(channels: int, sigma: int) -> None:
    image = np.full((200, 200, channels), 250, np.uint8)
    noisy = GaussianNoise(sigma)(image, np.random.default_rng(1))
    assert noisy.dtype == np.float32
    difference = (noisy - image / 255.0) * 255
    count = difference.size
    assert abs(difference.mean()) < 4 * sigma / count**0.5
    assert abs(difference.std() - sigma) < 4 * sigma / (2 * count) ** 0.5
    assert noisy.max() > 1
    assert np.unique(noisy * 255 % 1).size > 1000


def test_noise_differs_between_channels_and_draws() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    rng = np.random.default_rng(0)
    first, second = (GaussianNoise(25)(image, rng) for _ in range(2))
    for a, b in ((first[..., 0], first[..., 1]), (first[..., 1], first[..., 2]), (first[..., 0], second[..., 0])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.1


def test_test_noise_is_the_published_stream_in_opencv_s_channel_order() -> None:
    noisy = GaussianNoise(25)(PHOTO, np.random.RandomState(0))
    stream = np.random.RandomState(0).normal(0, 25 / 255, PHOTO.shape)
    opencv = PHOTO[..., ::-1].astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(noisy[..., ::-1], (opencv + stream).astype(np.float32))
    # The first numbers of RandomState(0) belong to blue, green and red of the first pixel.
    np.testing.assert_allclose(stream[0, 0] * 255 / 25, [1.76405235, 0.40015721, 0.97873798], atol=1e-8)


def test_gray_test_noise_is_the_stream_of_one_channel() -> None:
    gray = np.ascontiguousarray(PHOTO[..., :1])
    noisy = GaussianNoise(15)(gray, np.random.RandomState(0))
    stream = np.random.RandomState(0).normal(0, 15 / 255, (*PHOTO.shape[:2], 1))
    np.testing.assert_array_equal(noisy, (gray.astype(np.float32) / np.float32(255) + stream).astype(np.float32))


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_quality_and_size_are_opencvs(channels: int) -> None:
    image = np.ascontiguousarray(PHOTO[..., :channels])
    sizes, errors = [], []
    for quality in (10, 20, 30, 40):
        encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR
        decoded = cv2.imdecode(encoded, flag).reshape(image.shape)[..., ::-1]
        compressed = JpegArtifacts(quality)(image, np.random.default_rng(0))
        np.testing.assert_array_equal(compressed, decoded)
        sizes.append(len(encoded))
        errors.append(np.square(compressed.astype(float) - image).mean())
    assert sizes == sorted(set(sizes)) and errors == sorted(set(errors), reverse=True)


def random_windows(scale: int, count: int = 12) -> list[Window]:
    """Windows on multiples of the scale, those at all four corners among them."""
    rng = np.random.default_rng(4)
    height, width, size = PHOTO.shape[0] // scale, PHOTO.shape[1] // scale, 30 // scale
    places = [(0, 0), (height - size, 0), (0, width - size), (height - size, width - size)]
    places += [(int(rng.integers(height - size)), int(rng.integers(width - size))) for _ in range(count)]
    return [Window(top, left, size, size).scaled(scale) for top, left in places]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_reduced_patch_equals_the_patch_of_the_reduced_image(scale: int) -> None:
    image = PHOTO[: PHOTO.shape[0] // scale * scale, : PHOTO.shape[1] // scale * scale]
    whole = imresize(image, 1 / scale)
    for window in random_windows(scale):
        gt, lq = degrade_window(image, window, BicubicReduction(scale), np.random.default_rng(0))
        np.testing.assert_array_equal(gt, window.cut(image))
        small = Window(window.top // scale, window.left // scale, window.height // scale, window.width // scale)
        np.testing.assert_array_equal(lq, small.cut(whole))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [10, 40])
def test_a_compressed_patch_equals_the_patch_of_the_compressed_image(channels: int, quality: int) -> None:
    image = np.ascontiguousarray(PHOTO[..., :channels])
    whole = jpeg_compress(image, quality)
    for window in random_windows(1):
        gt, lq = degrade_window(image, window, JpegArtifacts(quality), np.random.default_rng(0))
        np.testing.assert_array_equal(gt, window.cut(image))
        np.testing.assert_array_equal(lq, window.cut(whole))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_any_window_of_any_image(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    top, left = int(rng.integers(height)), int(rng.integers(width))
    window = Window(top, left, int(rng.integers(1, height - top + 1)), int(rng.integers(1, width - left + 1)))
    for degradation in (GaussianNoise(15), JpegArtifacts(30), BicubicReduction(1)):
        gt, lq = degrade_window(image, window, degradation, rng)
        assert gt.shape == lq.shape == (window.height, window.width, 3)


@pytest.mark.parametrize("top", [4, 8, 36])
def test_several_degradations_do_to_a_part_what_they_do_to_the_whole(top: int) -> None:
    """Blur, reduction and JPEG in a row: margins and grids add up in pixels of the ground truth."""
    steps = [BoxBlur(), BicubicReduction(2), JpegArtifacts(40)]
    degradation = Degradations(steps)
    assert (degradation.scale, degradation.alignment, degradation.margin) == (2, 32, 1 + 4 + 2 * 2)
    image = skimage.data.astronaut()[:128, :160]
    whole = image
    for step in steps:
        whole = step(whole, np.random.default_rng(0))
    gt, part = degrade_window(image, Window(top, 20, 32, 40), degradation, np.random.default_rng(0))
    assert np.array_equal(gt, image[top : top + 32, 20:60])
    assert np.array_equal(part, whole[top // 2 : top // 2 + 16, 10:30])


class BoxBlur:
    """The mean of 3x3 pixels."""

    scale, alignment, margin = 1, 1, 1

    def __call__(self, image: np.ndarray, rng: RandomNumbers) -> np.ndarray:
        return cv2.blur(image, (3, 3), borderType=cv2.BORDER_REPLICATE)


def section(degradation: Any, **more: Any) -> DatasetOptions:
    keys = {"type": "SyntheticDataset", "dataroot_gt": "x", "gt_size": 16, "degradation": degradation, **more}
    return DatasetOptions.model_validate(keys)


@pytest.mark.parametrize(
    ("degradation", "expected"),
    [
        ({"type": "GaussianNoise", "sigma": 5}, "degradation: reduces images by 1, but scale is 2"),
        ([{"type": "BicubicReduction", "scale": 2}, {"type": "Jpeg"}], r"degradation\.1: unknown degradation 'Jpeg'"),
        ({"type": "BicubicReduction", "scale": 2, "sigma": 1}, "unknown key 'sigma' for BicubicReduction"),
        ({"type": "Careless"}, "Careless has no alignment and margin; a degradation has whole numbers"),
    ],
)
def test_degradations_that_do_not_fit(degradation: Any, expected: str, plugins_forgotten: None) -> None:
    @DEGRADATIONS.register()
    class Careless:
        scale = 2

        def __call__(self, image: np.ndarray, rng: RandomNumbers) -> np.ndarray:
            return image[::2, ::2]

    context = BuildContext(lambda key: key, "datasets.train", scale=2, training=True)
    with pytest.raises(UserError, match=expected):
        build_dataset(section(degradation), context)


def test_a_degradation_stands_alone() -> None:
    noise = {"type": "GaussianNoise", "sigma": 5}
    with pytest.raises(ValueError, match="says already what"):
        section(noise, task="CAR", quality=10)
    with pytest.raises(ValueError, match="leave out one"):
        section(noise, dataroot_lq="y")
