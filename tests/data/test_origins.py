"""JPEG files state their quality; grids and enlargement are seen in the pixels."""

import io

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from mambair.data.origins import JpegSource, has_jpeg_grid, jpeg_source, looks_enlarged

NAMES = ("astronaut", "coffee", "chelsea", "rocket", "camera", "coins", "grass", "gravel")


def photo(name: str) -> np.ndarray:
    image = getattr(skimage.data, name)()
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


@pytest.mark.parametrize("quality", [1, 10, 30, 50, 75, 90, 95, 100])
@pytest.mark.parametrize(("subsampling", "chroma"), [(0, "4:4:4"), (1, "4:2:2"), (2, "4:2:0")])
def test_jpeg_files_say_how_they_were_made(quality: int, subsampling: int, chroma: str) -> None:
    stream = io.BytesIO()
    image = Image.fromarray(skimage.data.astronaut()[:40, :40])
    image.save(stream, "JPEG", quality=quality, subsampling=subsampling)
    assert jpeg_source(stream.getvalue()) == JpegSource(quality, chroma)


def test_gray_jpeg_files_and_others() -> None:
    encoded = cv2.imencode(".jpg", photo("camera"), [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes()
    assert jpeg_source(encoded) == JpegSource(60, "gray")
    assert jpeg_source(cv2.imencode(".png", photo("camera"))[1].tobytes()) is None


def test_tables_of_other_programs_are_estimated() -> None:
    stream = io.BytesIO()
    tables = [[12] * 64, [20] * 64]  # between the sums of qualities 89 and 90
    Image.fromarray(skimage.data.astronaut()[:40, :40]).save(stream, "JPEG", qtables=tables)
    source = jpeg_source(stream.getvalue())
    assert source is not None and 80 <= source.quality <= 92, source


@pytest.mark.parametrize("name", NAMES)
def test_grids(name: str) -> None:
    image = cv2.resize(photo(name), None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)  # no grid of an earlier file
    assert not has_jpeg_grid(cv2.resize(photo(name), None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA))
    assert not has_jpeg_grid(image)
    compressed = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_GRAYSCALE)
    assert has_jpeg_grid(compressed)
    assert has_jpeg_grid(np.ascontiguousarray(compressed[3:, 5:]))


@pytest.mark.parametrize("name", NAMES)
def test_enlarged_images(name: str) -> None:
    image = photo(name)
    assert not looks_enlarged(image)
    for factor, interpolation in ((2, cv2.INTER_CUBIC), (2, cv2.INTER_LANCZOS4), (3, cv2.INTER_CUBIC)):
        assert looks_enlarged(cv2.resize(image, None, fx=factor, fy=factor, interpolation=interpolation))


def test_images_that_say_nothing() -> None:
    for image in (np.zeros((100, 100), np.uint8), np.zeros((1, 1), np.uint8), np.zeros((8, 300), np.uint8)):
        assert not looks_enlarged(image) and not has_jpeg_grid(image)
