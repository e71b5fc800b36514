"""Photos keep depth, alpha, profile and EXIF; every kind of file that people have is read upright."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from mambair.errors import UserError
from mambair.imaging.metadata import Metadata
from mambair.imaging.photo import Photo, read_photo, write_photo

ORIENTATION, MAKER, SUB_IFD, PIXEL_X = 0x0112, 0x010F, 0x8769, 0xA002
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 4), dtype=np.uint8)


@pytest.fixture
def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def saved(path: Path, pixels: np.ndarray, **keywords) -> Path:
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(path, **keywords)
    return path


@pytest.mark.parametrize(
    ("mode", "extension"),
    [*((mode, kind) for mode in CHANNELS for kind in ("png", "tif")), ("L", "bmp"), ("RGB", "bmp")],
)
def test_lossless_files_keep_every_channel(tmp_path: Path, pixels: np.ndarray, mode: str, extension: str) -> None:
    wanted = pixels[:, :, : CHANNELS[mode]]
    np.testing.assert_array_equal(read_photo(saved(tmp_path / f"a.{extension}", wanted)).pixels, wanted)
    write_photo(tmp_path / f"b.{extension}", Photo(wanted))
    np.testing.assert_array_equal(read_photo(tmp_path / f"b.{extension}").pixels, wanted)


@pytest.mark.parametrize("extension", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_survive(tmp_path: Path, profile: bytes, channels: int, extension: str) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (5, 7, channels), dtype=np.uint16)
    write_photo(tmp_path / f"a.{extension}", Photo(deep, Metadata(profile if channels > 2 else None)))
    photo = read_photo(tmp_path / f"a.{extension}")
    stored = deep[:, :, [0, 0, 0, 1]] if channels == 2 else deep
    np.testing.assert_array_equal(photo.pixels, stored)
    assert photo.metadata.icc_profile == (profile if channels > 2 else None)


def test_16_bits_become_8_where_the_type_has_no_more(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.bmp", Photo(np.full((2, 3, 3), 65535, np.uint16)))
    assert (read_photo(tmp_path / "a.bmp").pixels == 255).all()


def test_palettes_bilevel_and_cmyk_are_expanded(tmp_path: Path, pixels: np.ndarray) -> None:
    palette = Image.fromarray(pixels[:, :, :3]).quantize(8)
    palette.save(tmp_path / "p.png")
    palette.save(tmp_path / "pt.png", transparency=0)
    palette.save(tmp_path / "p.gif")
    Image.fromarray(pixels[:, :, 0]).convert("1").save(tmp_path / "b.png")
    Image.fromarray(pixels, "CMYK").save(tmp_path / "c.jpg")
    assert [read_photo(tmp_path / name).pixels.shape[2] for name in ("p.png", "pt.png", "p.gif", "b.png", "c.jpg")] == [
        3, 4, 3, 1, 3,
    ]  # fmt: skip
    assert set(np.unique(read_photo(tmp_path / "b.png").pixels)) == {0, 255}
    np.testing.assert_array_equal(read_photo(tmp_path / "p.png").pixels, np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("extension", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation_is_applied_once(tmp_path: Path, extension: str, orientation: int) -> None:
    gradient = np.zeros((32, 48, 3), np.uint8)
    gradient[:16, :24] = 250  # bright top left corner
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    photo = read_photo(saved(tmp_path / f"a.{extension}", gradient, exif=exif))
    turned = np.rot90(gradient, {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    assert photo.pixels.shape == turned.shape
    assert np.abs(photo.pixels.astype(int) - turned).mean() < 10
    write_photo(tmp_path / f"b.{extension}", photo)
    again = read_photo(tmp_path / f"b.{extension}")
    assert np.abs(again.pixels.astype(int) - turned).mean() < 10


@pytest.mark.parametrize("extension", ["png", "jpg", "webp"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_exif_and_profile_are_kept_but_for_what_became_untrue(
    tmp_path: Path, pixels: np.ndarray, profile: bytes, extension: str, dtype: type
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKER] = 6, "Maker"
    exif.get_ifd(SUB_IFD)[PIXEL_X] = 9
    photo = read_photo(saved(tmp_path / "a.jpg", pixels[:, :, :3], exif=exif, icc_profile=profile))
    target = tmp_path / f"b.{extension}"
    write_photo(target, replace(photo, pixels=photo.pixels.astype(dtype)))
    with Image.open(target) as image:
        image.load()
        assert image.info["icc_profile"] == profile
        kept = image.getexif()
        assert kept[MAKER] == "Maker" and ORIENTATION not in kept and PIXEL_X not in kept.get_ifd(SUB_IFD)


def test_a_profile_that_does_not_fit_the_channels_is_dropped(
    tmp_path: Path, pixels: np.ndarray, profile: bytes
) -> None:
    cmyk = profile[:16] + b"CMYK" + profile[20:]
    Image.fromarray(pixels, "CMYK").save(tmp_path / "c.jpg", icc_profile=cmyk)
    assert read_photo(tmp_path / "c.jpg").metadata.icc_profile is None


def test_bad_files_are_named(tmp_path: Path, pixels: np.ndarray) -> None:
    whole = saved(tmp_path / "whole.png", np.tile(pixels[:, :, :3], (20, 20, 1))).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    for name in ("cut.png", "text.png", "float.tif", "missing.png"):
        with pytest.raises(UserError, match=name):
            read_photo(tmp_path / name)


def test_what_a_type_cannot_hold_is_refused_and_nothing_written(tmp_path: Path) -> None:
    alpha = Photo(np.zeros((2, 2, 4), np.uint8))
    for name, photo in {"a.jpg": alpha, "a.gif": Photo(alpha.pixels[:, :, :3])}.items():
        with pytest.raises(UserError, match=name):
            write_photo(tmp_path / name, photo)
    with pytest.raises(UserError, match="WebP holds at most 16383 a side"):
        write_photo(tmp_path / "wide.webp", Photo(np.zeros((1, 20000, 3), np.uint8)))
    assert list(tmp_path.iterdir()) == []


def test_jpeg_keeps_full_chroma(tmp_path: Path) -> None:
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::2, 0], stripes[:, 1::2, 2] = 255, 255
    write_photo(tmp_path / "a.jpg", Photo(stripes), quality=95)
    assert np.abs(read_photo(tmp_path / "a.jpg").pixels.astype(int) - stripes).mean() < 6
