"""Copies of photos are found at other sizes, as crops and after compression; different photos are not."""

import cv2
import numpy as np
import pytest
import skimage.data

from mambair.data.likeness import Alike, find_alike, fingerprint
from mambair.data.likeness.candidates import candidate_pairs
from mambair.imaging.resize import imresize

NAMES = ("astronaut", "coffee", "chelsea", "rocket", "camera", "coins", "grass", "gravel", "brick", "moon")


def photo(name: str) -> np.ndarray:
    image = getattr(skimage.data, name)()
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


@pytest.fixture(scope="module")
def others() -> list:
    return [fingerprint(photo(name)) for name in NAMES]


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)


def crop(image: np.ndarray, part: float, at: float = 0.4) -> np.ndarray:
    height, width = image.shape
    top, left = round(at * (1 - part) * height), round(at * (1 - part) * width)
    return image[top : top + round(part * height), left : left + round(part * width)]


def only_pair(found: list[Alike]) -> Alike:
    assert len(found) == 1
    return found[0]


def test_different_photos_are_not_alike(others: list) -> None:
    assert find_alike(others) == []


@pytest.mark.parametrize("name", ["astronaut", "coffee", "rocket"])
@pytest.mark.parametrize(
    ("copy", "scale", "share"),
    [
        (lambda image: imresize(image, 0.25), 0.25, 1.0),
        (lambda image: imresize(image, 1 / 3), 1 / 3, 1.0),
        (lambda image: jpeg(image, 30), 1.0, 1.0),
        (lambda image: np.ascontiguousarray(crop(image, 0.5)), 1.0, 1.0),
        (lambda image: imresize(np.ascontiguousarray(crop(image, 0.7)), 0.71), 0.71, 1.0),
        (lambda image: jpeg(imresize(np.ascontiguousarray(crop(image, 0.5)), 2), 60), 2.0, 1.0),
    ],
    ids=["quarter", "third", "jpeg", "crop", "small-crop", "large-crop"],
)
def test_a_copy_is_found_among_others(name: str, copy, scale: float, share: float, others: list) -> None:
    found = only_pair(find_alike([*others, fingerprint(copy(photo(name)))]))
    assert (found.first, found.second) == (NAMES.index(name), len(NAMES))
    assert not found.are_equal and found.correlation > 0.9
    assert found.scale == pytest.approx(scale, rel=0.03)
    assert found.share == pytest.approx(share, abs=0.05)


def test_the_share_of_a_larger_image(others: list) -> None:
    # The crop comes first: a quarter of the second image's area is in it.
    part = fingerprint(np.ascontiguousarray(crop(photo("astronaut"), 0.5)))
    found = only_pair(find_alike([part, *others]))
    assert (found.first, found.second) == (0, 1)
    assert found.scale == pytest.approx(1.0, rel=0.03) and found.share == pytest.approx(0.25, abs=0.03)


def test_equal_images(others: list) -> None:
    flat = np.full((64, 64), 7, np.uint8)  # without any feature
    found = find_alike([*others, fingerprint(photo("moon")), fingerprint(flat), fingerprint(flat.copy())])
    assert [(each.first, each.second, each.are_equal) for each in found] == [(9, 10, True), (11, 12, True)]
    assert find_alike([fingerprint(flat), fingerprint(np.full((32, 128), 7, np.uint8))]) == []


def test_pairs_can_be_left_out(others: list) -> None:
    prints = [*others, fingerprint(photo("moon")), fingerprint(imresize(photo("coffee"), 0.5))]
    assert [each.second for each in find_alike(prints, lambda first, second: second != 10)] == [11]


def test_nothing_is_compared_where_there_is_nothing() -> None:
    assert find_alike([]) == [] and candidate_pairs([]) == []
    assert candidate_pairs([fingerprint(np.zeros((40, 40), np.uint8))] * 2) == []
    assert find_alike([fingerprint(np.zeros((1, 1), np.uint8))]) == []


def test_few_candidates_are_looked_at(others: list) -> None:
    copies = [fingerprint(imresize(photo(name), 0.5)) for name in NAMES]
    candidates = candidate_pairs([*others, *copies])
    wanted = {(index, index + len(NAMES)) for index in range(len(NAMES))}
    assert wanted <= set(candidates) and len(candidates) < 60  # of 190 pairs
    assert set(candidates[: len(NAMES)]) == wanted  # the true ones have the most votes
