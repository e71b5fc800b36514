"""Small images for the data commands."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from mambair.imaging.files import write_image


@pytest.fixture
def photo() -> np.ndarray:
    """A 130x118 colour photo, uint8."""
    return np.ascontiguousarray(skimage.data.astronaut()[40:170, 170:288])


@pytest.fixture
def image_folder(tmp_path: Path, photo: np.ndarray) -> Callable[..., Path]:
    """Makes a folder with the photo, shifted, under the given names."""

    def make(name: str, files: tuple[str, ...] = ("a.png", "b.png")) -> Path:
        for shift, file in enumerate(files):
            write_image(tmp_path / name / file, np.roll(photo, shift, axis=1))
        return tmp_path / name

    return make
