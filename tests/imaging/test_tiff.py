"""TIFF files as scanners and scientists write them."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile

from mambair.errors import UserError
from mambair.imaging.files import read_image
from mambair.imaging.photo import read_photo
from mambair.imaging.tiff import decode_tiff_samples, first_page


def deep(channels: int) -> np.ndarray:
    shape = (6, 9, channels) if channels > 1 else (6, 9)
    return np.random.default_rng(0).integers(0, 65536, shape, dtype=np.uint16)


@pytest.mark.parametrize("compression", [None, "zlib", "lzma"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("channels", [3, 4])
def test_planes_that_follow_each_other_are_not_mixed_up(tmp_path, channels, byteorder, compression) -> None:
    pixels = deep(channels)
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.moveaxis(pixels, 2, 0).copy(),
        photometric="rgb",
        planarconfig="separate",
        extrasamples=["unassalpha"] if channels == 4 else None,
        byteorder=byteorder,
        compression=compression,
    )
    np.testing.assert_array_equal(read_photo(tmp_path / "a.tif").pixels, pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), pixels[:, :, :3])
    assert read_image(tmp_path / "a.tif", "gray").shape == (6, 9, 1)


def test_a_compression_that_opencv_lacks(tmp_path: Path) -> None:
    for channels in (1, 3):
        tifffile.imwrite(tmp_path / "a.tif", deep(channels), compression="lzma")
        np.testing.assert_array_equal(read_photo(tmp_path / "a.tif").pixels, deep(channels).reshape(6, 9, channels))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", "unchanged"), deep(3))


def test_the_orientation_of_separate_planes_is_applied(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.moveaxis(deep(3), 2, 0).copy(),
        photometric="rgb",
        planarconfig="separate",
        extratags=[(274, "H", 1, 6, True)],
    )
    np.testing.assert_array_equal(read_photo(tmp_path / "a.tif").pixels, np.rot90(deep(3), -1))


def test_what_cannot_be_read_is_called_what_it_is(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "f.tif", np.zeros((4, 4, 3), np.float32), photometric="rgb")
    with pytest.raises(UserError, match=r"f\.tif: .* floats"):
        read_photo(tmp_path / "f.tif")
    tifffile.imwrite(tmp_path / "i.tif", np.zeros((4, 4), np.int16))
    with pytest.raises(UserError, match=r"i\.tif: has int16 pixels; convert it to 8 or 16 bits"):
        read_photo(tmp_path / "i.tif")
    whole = tmp_path / "w.tif"
    tifffile.imwrite(whole, np.moveaxis(deep(3), 2, 0).copy(), photometric="rgb", planarconfig="separate")
    for length in range(0, whole.stat().st_size, 7):
        (tmp_path / "cut.tif").write_bytes(whole.read_bytes()[:length])
        with pytest.raises(UserError, match=r"cut\.tif: "):
            read_photo(tmp_path / "cut.tif")
    (tmp_path / "iphone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(UserError, match=r"iphone\.heic: a (HEIC photo; .*pip install|damaged HEIC photo)"):
        read_photo(tmp_path / "iphone.heic")


@pytest.mark.parametrize(("number", "called"), [(10, "10 of 16 bits"), (33_000, "33000 of 16 bits")])
def test_colours_that_are_not_rgb_are_named(tmp_path: Path, number: int, called: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, deep(3), photometric="rgb", compression="lzma")
    with tifffile.TiffFile(path, mode="r+") as archive:
        archive.pages[0].tags["PhotometricInterpretation"].overwrite(number)
    with pytest.raises(UserError, match=rf"its colours are {called}\)"):
        decode_tiff_samples(path.read_bytes(), first_page(io.BytesIO(path.read_bytes())), path)
