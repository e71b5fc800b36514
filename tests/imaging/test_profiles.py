"""Colours: what profiles and PNG's own chunks say is used or kept."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from mambair.errors import UserError
from mambair.imaging import profiles
from mambair.imaging.files import read_image
from mambair.imaging.metadata import Metadata
from mambair.imaging.photo import Photo, read_photo, write_photo
from tests.imaging.odd_files import COLOR, GRAY, picture, png, tiff

# The corners of an imagined press: L*, a*, b* of cyan, magenta, yellow and their overprints on paper.
CORNERS = {
    (0, 0, 0): (95, 0, -2), (1, 0, 0): (55, -37, -50), (0, 1, 0): (48, 74, -3), (0, 0, 1): (89, -5, 93),
    (1, 1, 0): (24, 22, -46), (1, 0, 1): (50, -68, 25), (0, 1, 1): (47, 68, 48), (1, 1, 1): (23, 0, 0),
}  # fmt: skip


def press_profile() -> bytes:
    """A profile that goes from CMYK to L*a*b* between those corners."""

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    table = b""
    for corner, (light, a, b) in sorted(CORNERS.items()):
        del corner
        for black in (1, 0.17):
            table += struct.pack(
                ">HHH", int(light * black / 100 * 0xFF00), int((a * black + 128) * 256), int((b * black + 128) * 256)
            )
    lut = b"mft2\0\0\0\0" + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + struct.pack(">HH", 2, 2)
    lut += struct.pack(">HH", 0, 65535) * 4 + table + struct.pack(">HH", 0, 65535) * 3
    white = b"XYZ \0\0\0\0" + fixed(0.9642, 1, 0.8249)
    name = b"desc\0\0\0\0" + struct.pack(">I", 6) + b"press\0" + bytes(78)
    tags = [(b"desc", name), (b"cprt", b"text\0\0\0\0none\0"), (b"wtpt", white), (b"A2B0", lut)]
    start, index, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for number, content in tags:
        content += bytes(-len(content) % 4)
        index += number + struct.pack(">II", start + len(body), len(content))
        body += content
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249) + bytes(48)
    return head + index + body


@pytest.mark.parametrize("extension", ["jpg", "tif"])
def test_cmyk_is_converted_by_its_profile(tmp_path: Path, extension: str) -> None:
    inks = np.zeros((16, 64, 4), np.uint8)
    for column, which in enumerate([[0], [1], [2], [0, 1]]):
        inks[:, 16 * column : 16 * column + 16, which] = 255
    options = {"quality": 98, "subsampling": 0} if extension == "jpg" else {}
    image = Image.frombytes("CMYK", (64, 16), inks.tobytes())
    image.save(tmp_path / f"a.{extension}", icc_profile=press_profile(), **options)
    photo = read_photo(tmp_path / f"a.{extension}")
    assert photo.metadata.icc_profile is None
    found = photo.pixels[8, [8, 24, 40, 56]].astype(int)
    wanted = [(0, 150, 218), (216, 0, 121), (247, 224, 0), (49, 43, 127)]
    assert np.abs(found - wanted).max() <= 12
    image.save(tmp_path / f"b.{extension}", **options)  # without a profile there is only the formula
    assert np.abs(read_photo(tmp_path / f"b.{extension}").pixels[8, 8].astype(int) - (0, 255, 255)).max() <= 4
    image.save(tmp_path / f"c.{extension}", icc_profile=press_profile()[:200], **options)
    assert read_photo(tmp_path / f"c.{extension}").pixels.shape == (16, 64, 3)


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
@pytest.mark.parametrize("extension", ["jpg", "webp", "tif", "png"])
def test_gamma_and_primaries_of_png_stay_or_become_a_profile(tmp_path: Path, gamma: float, extension: str) -> None:
    adobe = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
    chunks = [(b"gAMA", struct.pack(">I", round(100_000 / gamma))), (b"cHRM", adobe)]
    (tmp_path / "a.png").write_bytes(png(picture(3), 8, COLOR, chunks))
    target = tmp_path / f"b.{extension}"
    assert write_photo(target, read_photo(tmp_path / "a.png")) == ()
    if extension == "png":
        assert read_photo(target).metadata.colors == tuple(chunks)
        return
    profile = read_photo(target).metadata.icc_profile
    assert profile is not None
    green = ImageCms.profileToProfile(
        Image.new("RGB", (1, 1), (0, 128, 0)),
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    ).getpixel((0, 0))
    luminance = 0.6274 * (128 / 255) ** gamma  # of Adobe RGB's green primary
    assert abs(green[0] / 2.55 - (116 * luminance ** (1 / 3) - 16)) < 1.5


def test_pngs_like_srgb_get_no_profile(tmp_path: Path) -> None:
    for chunks in ([(b"sRGB", b"\0")], [(b"gAMA", struct.pack(">I", 45455))], [(b"cICP", bytes([1, 13, 0, 1]))]):
        (tmp_path / "a.png").write_bytes(png(picture(3), 8, COLOR, chunks))
        write_photo(tmp_path / "b.jpg", read_photo(tmp_path / "a.png"))
        assert read_photo(tmp_path / "b.jpg").metadata.icc_profile is None


def test_gray_gamma_becomes_a_gray_profile(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(picture(1), 8, GRAY, [(b"gAMA", struct.pack(">I", 100_000))]))
    write_photo(tmp_path / "b.tif", read_photo(tmp_path / "a.png"))
    profile = read_photo(tmp_path / "b.tif").metadata.icc_profile
    assert profile is not None and profile[16:20] == b"GRAY"
    assert profiles.color_difference(profile, None) > 60


def test_hdr_is_kept_by_png_and_refused_by_others(tmp_path: Path) -> None:
    chunks = [(b"cICP", bytes([9, 16, 0, 1]))]
    (tmp_path / "a.png").write_bytes(png(picture(3, 16), 16, COLOR, chunks))
    photo = read_photo(tmp_path / "a.png")
    write_photo(tmp_path / "b.png", photo)
    assert read_photo(tmp_path / "b.png").metadata.colors == tuple(chunks)
    with pytest.raises(UserError, match=r"b\.jpg: its colours are those of HDR .*; write PNG"):
        write_photo(tmp_path / "b.jpg", photo)


def test_display_p3_is_what_others_make_of_it() -> None:
    profile = profiles.profile_of_png([(b"cICP", bytes([12, 13, 0, 1]))], gray=False)
    red = ImageCms.profileToProfile(
        Image.new("RGB", (1, 1), (200, 40, 60)),
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
    ).getpixel((0, 0))
    # By the matrices of CSS Color 4.
    assert np.abs(np.subtract(red, (217, 0, 56))).max() <= 2


def test_profiles_are_compared_by_their_colors() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert profiles.color_difference(srgb, None) <= profiles.SAME_COLORS
    own = profiles.make_profile("own", (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045), profiles.SRGB_PRIMARIES)
    assert profiles.color_difference(own, srgb) <= profiles.SAME_COLORS
    adobe = profiles.make_profile("wide", (2.2,), ((0.3127, 0.329), (0.64, 0.33), (0.21, 0.71), (0.15, 0.06)))
    assert profiles.color_difference(adobe, None) > 20
    assert profiles.describe(adobe) == "wide" and "sRGB" in profiles.describe(None)


def test_cmyk_of_16_bits_is_converted_too(tmp_path: Path) -> None:
    inks = np.zeros((4, 5, 4), np.uint16)
    inks[:, :, 0] = 65535
    (tmp_path / "a.tif").write_bytes(tiff(inks, 16, 5))
    photo = read_photo(tmp_path / "a.tif")
    assert photo.pixels.dtype == np.uint8 and (photo.pixels == (0, 255, 255)).all()
    assert photo.dropped == ("bits beyond 8 of CMYK",)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), photo.pixels)


@pytest.mark.parametrize("curve", [(1.8,), profiles._SRGB_CURVE, b"curv\0\0\0\0\0\0\0\1\1\x80\0\0"])
@pytest.mark.parametrize(("extension", "dtype", "channels"), [("webp", "u1", 1), ("webp", "u1", 2), ("png", "u2", 2)])
def test_a_gray_profile_holds_for_three_equal_channels(
    tmp_path: Path, curve, extension: str, dtype: str, channels: int
) -> None:
    gray = profiles.make_profile("gray", curve, None)
    path = tmp_path / f"a.{extension}"
    photo = Photo(picture(channels, 8 * np.dtype(dtype).itemsize), Metadata(icc_profile=gray))
    assert write_photo(path, photo, 100) == ()
    kept = read_photo(path).metadata.icc_profile
    assert kept is not None and kept[16:20] == b"RGB "
    assert profiles.color_difference(kept, gray) <= 1 and profiles.describe(kept) == "gray"


def test_a_gray_profile_without_a_curve_is_said_to_be_lost(tmp_path: Path) -> None:
    gray = profiles.make_profile("gray", (1.8,), None).replace(b"kTRC", b"xTRC")
    photo = Photo(picture(1), Metadata(icc_profile=gray))
    assert write_photo(tmp_path / "a.webp", photo) == (
        "a profile for other channels than are stored (no place in WebP)",
    )
    assert write_photo(tmp_path / "a.png", photo) == ()
