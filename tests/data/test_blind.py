"""Degradations of drawn strength: their ranges, their draws, and that the same numbers give the same images."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from mambair.data.blind import RandomGaussianNoise, RandomJpeg, SecondOrder
from mambair.data.builders import BuildContext, build_dataset
from mambair.data.degradations.second_order import FIRST_ROUND, MODERATE_FIRST_ROUND
from mambair.data.loaders import TrainLoader
from mambair.data.samplers import DrawSchedule, Stage, plan_batch
from mambair.data.seeded_dataset import SeededDataset
from mambair.data.synthesis import degrade_window
from mambair.data.transforms import Window
from mambair.errors import UserError
from mambair.imaging.files import write_image
from mambair.options.dataset_schema import DatasetOptions

PHOTO = skimage.data.astronaut()[:119, 150:251]
BLIND = [
    {"type": "RandomGaussianNoise", "sigma": [0, 55], "clip_odds": 0.5},
    {"type": "RandomJpeg"},
    {"type": "SecondOrder"},
]


def test_every_image_gets_a_sigma_of_the_range() -> None:
    image = np.full((64, 64, 3), 128, np.uint8)
    degradation, rng = RandomGaussianNoise((0, 55)), np.random.default_rng(0)
    sigmas = np.array([(degradation(image, rng) * 255).std() for _ in range(400)])
    assert sigmas.min() < 2 and 52 < sigmas.max() < 57
    counts = np.histogram(sigmas, bins=5, range=(0, 55))[0]
    assert counts.min() > 80 - 4 * 64**0.5, "even over the range: 80 in each fifth"


def test_noise_of_one_sigma_is_that_of_published_tests() -> None:
    noisy = RandomGaussianNoise((25, 25))(PHOTO, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    rng.uniform(), rng.uniform()
    expected = PHOTO / 255 + rng.normal(0, 25 / 255, PHOTO.shape)[..., ::-1]
    np.testing.assert_allclose(noisy, expected, atol=1e-6)


def test_a_share_of_the_noisy_images_is_clipped() -> None:
    rng, degradation = np.random.default_rng(1), RandomGaussianNoise((40, 50), clip_odds=0.25)
    image = np.full((16, 16, 3), 250, np.uint8)
    clipped = sum(bool(degradation(image, rng).max() <= 1) for _ in range(200))
    assert 30 < clipped < 70
    assert RandomGaussianNoise((40, 50))(image, rng).max() > 1


def encoded(image: np.ndarray, quality: int, sampling: int) -> np.ndarray:
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    return cv2.imdecode(cv2.imencode(".jpg", image[..., ::-1], settings)[1], cv2.IMREAD_COLOR)[..., ::-1]


def test_every_quality_and_both_samplings_are_drawn() -> None:
    samplings = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    files = {(q, s): encoded(PHOTO, q, s).tobytes() for q in range(10, 14) for s in samplings}
    assert len(set(files.values())) == 8
    degradation, rng = RandomJpeg((10, 13), full_chroma_odds=0.5), np.random.default_rng(0)
    drawn = [degradation(PHOTO, rng).tobytes() for _ in range(200)]
    counts = {setting: drawn.count(content) for setting, content in files.items()}
    assert sum(counts.values()) == 200 and min(counts.values()) > 8
    whole = RandomJpeg((13, 13), full_chroma_odds=0)(PHOTO, rng)
    np.testing.assert_array_equal(whole, encoded(PHOTO, 13, samplings[0]))
    gray = np.ascontiguousarray(PHOTO[..., :1])
    assert RandomJpeg((10, 10), full_chroma_odds=1)(gray, rng).shape == gray.shape


def test_a_compressed_patch_equals_the_patch_of_the_compressed_image() -> None:
    for odds in (0, 1):
        degradation = RandomJpeg((30, 30), full_chroma_odds=odds)
        whole = degradation(PHOTO, np.random.default_rng(0))
        for window in (Window(0, 0, 30, 30), Window(41, 33, 31, 29), Window(89, 71, 30, 30)):
            _, lq = degrade_window(PHOTO, window, degradation, np.random.default_rng(5))
            np.testing.assert_array_equal(lq, window.cut(whole))


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("size", [(96, 120), (24, 16), (4, 4)])
def test_second_order_gives_uint8_of_the_reduced_size(scale: int, size: tuple[int, int]) -> None:
    image = skimage.data.astronaut()[60 : 60 + size[0], 180 : 180 + size[1]]
    for channels in (3, 1):
        degraded = SecondOrder(scale)(np.ascontiguousarray(image[..., :channels]), np.random.default_rng(2))
        assert degraded.dtype == np.uint8 and degraded.shape == (size[0] // scale, size[1] // scale, channels)


def test_second_order_is_the_same_each_time_and_another_for_each_image_and_seed() -> None:
    """All images of a test begin with the same stream; they are to be degraded differently all the same."""
    image = skimage.data.astronaut()[:96, 180:276]
    once, again = (SecondOrder(1)(image, np.random.RandomState(0)) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    other = SecondOrder(1, seed=1)(image, np.random.RandomState(0))
    mirrored = SecondOrder(1)(image[:, ::-1], np.random.RandomState(0))[:, ::-1]
    assert not np.array_equal(once, other) and not np.array_equal(once, mirrored)


def test_moderate_spoils_less_than_published() -> None:
    image = skimage.data.astronaut()[60:188, 150:278]
    errors = {
        strength: np.mean(
            [
                np.abs(SecondOrder(1, strength)(image, np.random.default_rng(seed)).astype(float) - image).mean()
                for seed in range(24)
            ]
        )
        for strength in ("moderate", "published")
    }
    assert 1 < errors["moderate"] < 0.6 * errors["published"]
    assert MODERATE_FIRST_ROUND.noise[1] == FIRST_ROUND.noise[1] / 2


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"type": "RandomGaussianNoise", "sigma": [30, 10]}, "sigma: expected two numbers from 0 to 255"),
        ({"type": "RandomJpeg", "quality": [0, 10]}, "quality: expected two numbers from 1 to 100"),
        ({"type": "RandomJpeg", "full_chroma_odds": 2}, "full_chroma_odds: expected a probability"),
        ({"type": "SecondOrder", "strength": "mild"}, r"strength.*'published' or 'moderate'"),
        ({"type": "SecondOrder", "scale": 0}, "expected a scale of at least 1"),
        ({"type": "SecondOrder", "scale": 4}, "reduces images by 4, but scale is 1"),
    ],
)
def test_values_that_are_refused(block: dict, message: str, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", PHOTO)
    with pytest.raises(UserError, match=message):
        build(tmp_path, block)


def build(folder: Path, block: dict, training: bool = True):
    section = DatasetOptions(type="SyntheticDataset", dataroot_gt=str(folder), gt_size=24, degradation=block)
    return build_dataset(section, BuildContext(lambda key: f"x.yml: {key}", "datasets.train", 1, training))


@pytest.mark.parametrize("block", BLIND, ids=lambda block: block["type"])
def test_workers_and_resumed_runs_draw_the_same(block: dict, tmp_path: Path) -> None:
    for index in range(3):
        write_image(tmp_path / f"{index}.png", skimage.data.astronaut()[index * 40 : index * 40 + 110, 150:260])

    def lq(workers: int, start: int = 0) -> list[torch.Tensor]:
        seeded = SeededDataset(build(tmp_path, block), seed=4)
        schedule = DrawSchedule([Stage(0, plan_batch(2, 1, 2), None)])
        with TrainLoader(seeded, schedule, start_iter=start, total_iter=4, num_workers=workers) as loader:
            return [batch.content["lq"] for step in loader for batch in step.micro_batches]

    alone = lq(0)
    assert len({image.numpy().tobytes() for batch in alone for image in batch}) == 8, "a strength and patch for each"
    for workers, start in ((1, 0), (0, 2)):
        for one, other in zip(alone[start:], lq(workers, start), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("block", BLIND, ids=lambda block: block["type"])
def test_validation_is_the_same_each_time(block: dict, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", PHOTO)
    one, other = (build(tmp_path, block, training=False)[0]["lq"] for _ in range(2))
    assert torch.equal(one, other)
    pickle.loads(pickle.dumps(build(tmp_path, block)))
