"""What lies around pixels, damaged or in odd places: it costs no pixels, and is kept or said to be lost."""

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from mambair.data.origins import jpeg_source
from mambair.errors import UserError
from mambair.imaging import heif
from mambair.imaging.files import read_image, read_image_size
from mambair.imaging.ifd import ASCII, SHORT, Tag, number_tag
from mambair.imaging.jpeg_parts import behind_jpeg, only_jpeg_pixels
from mambair.imaging.optional_formats import openable
from mambair.imaging.photo import Photo, read_photo, write_photo
from mambair.imaging.profiles import color_difference
from tests.imaging.odd_files import COLOR, GRAY, PALETTE, exif, picture, png

EMPTY_EXIF = b"MM\0*\0\0\0\x08\0\0\0\0\0\0"


def saved(kind: str, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture(3, height=20, width=24)).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def read(path: Path, data: bytes) -> Photo:
    """As restoring and as training read it."""
    path.write_bytes(data)
    photo = read_photo(path)
    np.testing.assert_array_equal(read_image(path, "unchanged"), photo.pixels)
    assert read_image_size(path) == photo.pixels.shape
    return photo


def with_segment(jpeg: bytes, marker: int, content: bytes, first: bool = False) -> bytes:
    """A JPEG with a segment more, before or behind that of JFIF."""
    place = 2 if first else 4 + int.from_bytes(jpeg[4:6], "big")
    return jpeg[:place] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + jpeg[place:]


def index_of_images(*entries: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """A multi-picture index of these entries (tag, type, count, value)."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    return b"MPF\0" + head + b"".join(struct.pack(order + "HHI", *each[:3]) + each[3] for each in entries) + bytes(4)


TWO_IMAGES = index_of_images((0xB001, 4, 1, b"\2\0\0\0"))
ODD_SEGMENTS = {
    "no JFIF": (0xE0, b"JFIF\0"),
    "JFIF of a later version": (0xE0, b"JFIF\0\7\7\0\0\1\0\1\0\0"),
    "no Adobe": (0xEE, b"Adobe"),
    "no number in a profile": (0xE2, b"ICC_PROFILE\0\2"),
    "an index with short entries": (0xE2, index_of_images((0xB001, 4, 1, b"\2\0\0\0"), (0xB002, 7, 4, b"abcd"))),
    "an index with two numbers": (0xE2, index_of_images((0xB001, 3, 2, b"\2\0\2\0"), (0xB002, 7, 4, b"abcd"))),
    "an index of billions": (0xE2, index_of_images((0xB001, 4, 1, b"\xff" * 4), (0xB002, 7, 4, b"abcd"))),
    "Photoshop cut short": (0xED, b"Photoshop 3.0\x008BIM\4"),
    "EXIF of nothing": (0xE1, b"Exif\0\0"),
}


@pytest.mark.parametrize("name", ODD_SEGMENTS)
@pytest.mark.parametrize("first", [False, True])
def test_odd_segments_of_a_jpeg_cost_no_pixels(tmp_path: Path, name: str, first: bool) -> None:
    plain = saved("JPEG", quality=80)
    odd = with_segment(plain, *ODD_SEGMENTS[name], first)
    np.testing.assert_array_equal(read(tmp_path / "a.jpg", odd).pixels, read(tmp_path / "b.jpg", plain).pixels)
    assert jpeg_source(odd) == jpeg_source(plain)


def test_random_segments_of_a_jpeg_cost_no_pixels(tmp_path: Path) -> None:
    plain, draw = saved("JPEG"), random.Random(7)
    wanted = read(tmp_path / "b.jpg", plain).pixels
    heads = {
        0xE0: [b"JFIF\0"],
        0xE1: [b"http://ns.adobe.com/xap/1.0/\0"],
        0xED: [b"Photoshop 3.0\x008BIM"],
        0xFE: [b""],
    }
    heads |= {0xE2: [b"ICC_PROFILE\0", b"MPF\0", b"MPF\0II*\0\x08\0\0\0"], 0xEE: [b"Adobe"]}
    for number in range(300):
        marker = draw.choice([*heads])
        body = draw.choice(heads[marker]) + bytes(draw.randrange(256) for _ in range(draw.choice([0, 1, 4, 40])))
        if marker == 0xEE and len(body) >= 12:  # which says how colours are coded
            continue
        pixels = read(tmp_path / "a.jpg", with_segment(plain, marker, body, number % 3 == 0)).pixels
        np.testing.assert_array_equal(pixels, wanted)


@pytest.mark.parametrize("strays", [b"\0", b"abc\0\0", b"\xff\xff\xff", b"\xff\x01", b"\xff\xd8"])
def test_bytes_between_the_segments_of_a_jpeg_are_passed_over(tmp_path: Path, strays: bytes) -> None:
    plain = saved("JPEG", comment=b"caf\xe9")
    place = 4 + int.from_bytes(plain[4:6], "big")
    photo = read(tmp_path / "a.jpg", plain[:place] + strays + plain[place:])
    np.testing.assert_array_equal(photo.pixels, read(tmp_path / "b.jpg", plain).pixels)
    assert photo.metadata.comment == "café"


@pytest.mark.parametrize("progressive", [False, True])
def test_what_follows_the_picture_of_a_jpeg_is_said_to_be_lost(tmp_path: Path, progressive: bool) -> None:
    plain = saved("JPEG", progressive=progressive)
    assert behind_jpeg(plain) == b"" and read(tmp_path / "a.jpg", plain + b"\0" * 99).dropped == ()
    gain_map = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description hdrgm:Version="1.0"/>'
    ultra = with_segment(with_segment(plain, 0xE2, TWO_IMAGES), 0xE1, gain_map) + plain
    film = plain + b"\0\0\0\x18ftypmp42" + bytes(40)
    extended = with_segment(plain, 0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 40)
    for name, data, lost in [("ultra", ultra, "gain maps"), ("film", film, "film"), ("long", extended, "XMP beyond")]:
        photo = read(tmp_path / f"{name}.jpg", data)
        np.testing.assert_array_equal(photo.pixels, read(tmp_path / "b.jpg", plain).pixels)
        assert len(photo.dropped) == 1 and lost in photo.dropped[0]


def test_cmyk_of_a_jpeg_is_known_by_its_frame(tmp_path: Path) -> None:
    plain = saved("JPEG", "CMYK", quality=95)
    photo = read(tmp_path / "a.jpg", with_segment(plain, 0xE0, b"JFIF\0"))
    np.testing.assert_array_equal(photo.pixels, read(tmp_path / "b.jpg", plain).pixels)
    assert np.abs(photo.pixels.astype(int) - picture(3, height=20, width=24)).max() < 12
    assert only_jpeg_pixels(plain).count(b"Adobe") == 1


avif = pytest.mark.skipif("AVIF" not in openable(), reason="this Pillow has no AVIF")


@avif
def test_damaged_exif_of_an_avif_costs_no_pixels(tmp_path: Path) -> None:
    whole = saved("AVIF", exif=EMPTY_EXIF, quality=90)
    assert whole.count(EMPTY_EXIF) == 1 and read(tmp_path / "a.avif", whole).dropped == ()
    photo = read(tmp_path / "b.avif", whole.replace(EMPTY_EXIF, b"XX" + EMPTY_EXIF[2:]))
    np.testing.assert_array_equal(photo.pixels, read_photo(tmp_path / "a.avif").pixels)
    assert photo.dropped == ("damaged EXIF",)


@avif
@pytest.mark.parametrize(("primaries", "curve"), [(12, 13), (9, 16), (9, 18), (1, 13), (2, 2), (1, 1), (12, 1)])
def test_primaries_and_curve_of_an_avif_are_kept(tmp_path: Path, primaries: int, curve: int) -> None:
    data = saved("AVIF")
    place = data.index(b"colrnclx") + 8
    photo = read(tmp_path / "a.avif", data[:place] + struct.pack(">HH", primaries, curve) + data[place + 4 :])
    if primaries != 12 and curve not in (16, 18):
        assert photo.metadata.colors == ()
        return
    curve = 13 if curve == 1 else curve  # of video; viewers take sRGB's
    assert photo.metadata.colors == ((b"cICP", bytes([primaries, curve, 0, 1])),)
    write_photo(tmp_path / "a.png", photo)
    assert read_photo(tmp_path / "a.png").metadata.colors == photo.metadata.colors
    if curve == 13:
        write_photo(tmp_path / "a.jpg", photo)
        assert color_difference(read_photo(tmp_path / "a.jpg").metadata.icc_profile, None) > 20
    else:
        with pytest.raises(UserError, match="HDR"):
            write_photo(tmp_path / "a.jpg", photo)


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def test_depth_of_an_avif() -> None:
    for flags, deep in ((0x0C, False), (0x4C, True), (0x6C, True)):
        properties = box(b"iprp", box(b"ipco", box(b"av1C", bytes([0x81, 0, flags, 0]))))
        assert heif.is_deep_avif(box(b"ftyp", b"avif") + box(b"meta", bytes(4) + properties)) is deep
    assert not heif.is_deep_avif(b"\0\0\0\x18ftypavif" + b"\xff" * 40)


IMPOSSIBLE = [
    (b"gAMA", b"\0"),
    (b"gAMA", bytes(4)),
    (b"gAMA", struct.pack(">I", 1)),
    (b"cHRM", b"short"),
    (b"cHRM", bytes(32)),
    (b"cHRM", struct.pack(">8I", *[31270, 32900] * 4)),
    (b"cICP", b"\x09"),
    (b"sRGB", b""),
    (b"mDCV", b"1"),
]


@pytest.mark.parametrize("chunk", IMPOSSIBLE)
@pytest.mark.parametrize("color", [GRAY, COLOR])
def test_impossible_colours_of_a_png_are_left_out(tmp_path: Path, chunk: tuple[bytes, bytes], color: int) -> None:
    values = picture(1 if color == GRAY else 3)
    photo = read(tmp_path / "a.png", png(values, 8, color, [chunk]))
    assert photo.metadata.colors == () and "damaged" in photo.dropped[0]
    for extension in ("png", "jpg", "tif", "webp", "bmp"):
        write_photo(tmp_path / f"b.{extension}", photo)
        with Image.open(tmp_path / f"b.{extension}") as image:  # as other programs do
            assert image.size == (13, 11)


@pytest.mark.parametrize("numbers", [(2, 2), (5, 6), (6, 6), (11, 13), (22, 1), (1, 7)])
def test_primaries_of_film_and_television_become_a_profile(tmp_path: Path, numbers: tuple[int, int]) -> None:
    photo = read(tmp_path / "a.png", png(picture(3), 8, COLOR, [(b"cICP", bytes([*numbers, 0, 1]))]))
    write_photo(tmp_path / "b.tif", photo)
    profile = read_photo(tmp_path / "b.tif").metadata.icc_profile
    assert (profile is None) == (numbers == (2, 2))
    assert numbers == (2, 2) or color_difference(profile, None) > 3


@pytest.mark.parametrize("damage", ["count cut", "count cut, too", "no such frames", "data cut"])
def test_a_damaged_animation_leaves_the_picture_of_a_png(tmp_path: Path, damage: str) -> None:
    chunks = {"count cut": [(b"acTL", b"\0\0")], "count cut, too": [(b"acTL", b"\0\0\0\2\0")]}
    if damage in chunks:
        photo = read(tmp_path / "a.png", png(picture(3), 8, COLOR, chunks[damage]))
    elif damage == "no such frames":
        photo = read(tmp_path / "a.png", png(picture(3), 8, COLOR, [(b"acTL", struct.pack(">II", 3, 0))]))
        assert "damaged" in photo.dropped[0]
    else:
        stream = io.BytesIO()
        first, second = (Image.fromarray(each) for each in (picture(3), picture(3)[::-1].copy()))
        first.save(stream, "PNG", save_all=True, append_images=[second])
        data = stream.getvalue()
        place = data.index(b"fdAT")
        photo = read(tmp_path / "a.png", data[: place + 12] + bytes(20) + data[place + 32 :])
        assert "damaged" in photo.dropped[0]
    np.testing.assert_array_equal(photo.pixels, picture(3))
    assert photo.further == ()


def test_an_impossible_unit_of_resolution_goes_into_no_tiff(tmp_path: Path) -> None:
    block = exif(1, {271: Tag(ASCII, 2, b"M\0"), 296: number_tag(SHORT, [189], "<")})
    photo = read(tmp_path / "a.png", png(picture(3), 8, COLOR, [(b"eXIf", block)]))
    write_photo(tmp_path / "a.tif", photo)
    with tifffile.TiffFile(tmp_path / "a.tif") as archive:
        assert 296 not in archive.pages[0].tags and archive.pages[0].tags[271].value == "M"


def test_transparency_that_libpng_ignores_is_none(tmp_path: Path) -> None:
    palette = (b"PLTE", bytes(range(48)))
    assert (
        read(tmp_path / "a.png", png(picture(1, 4), 4, PALETTE, [palette, (b"tRNS", bytes(17))])).pixels.shape[2] == 3
    )
    assert (
        read(tmp_path / "b.png", png(picture(1, 4), 4, PALETTE, [palette, (b"tRNS", bytes(16))])).pixels.shape[2] == 4
    )
    assert read(tmp_path / "c.png", png(picture(3), 8, COLOR, [(b"tRNS", b"\0\1")])).pixels.shape[2] == 3


def test_iptc_in_the_old_texts_of_imagemagick(tmp_path: Path) -> None:
    record = b"\x1c\x02\x78\x00\x07caption"
    resources = b"8BIM\4\4\0\0" + struct.pack(">I", len(record)) + record
    for name, content in ((b"iptc", resources), (b"8bim", resources), (b"iptc", record)):
        text = b"\n%s\n%8d\n%s\n" % (name, len(content), content.hex().encode())
        chunk = (b"zTXt", b"Raw profile type " + name + b"\0\0" + zlib.compress(text))
        photo = read(tmp_path / "a.png", png(picture(3), 8, COLOR, [chunk]))
        assert photo.metadata.iptc == record and photo.dropped == ()
        for extension in ("png", "jpg", "tif"):
            assert write_photo(tmp_path / f"b.{extension}", photo) == ()
            assert read_photo(tmp_path / f"b.{extension}").metadata.iptc == record
    other = (b"tEXt", b"Raw profile type APP12\0\nAPP12\n 2\n0000\n")
    assert read(tmp_path / "a.png", png(picture(3), 8, COLOR, [other])).dropped != ()


def test_profile_of_a_bmp(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = saved("BMP")
    body = plain[54:]
    head = bytearray(struct.pack("<I", 124) + plain[18:54] + bytes(84))
    head[56:60] = b"DEBM"
    head[112:120] = struct.pack("<2I", 124 + len(body), len(profile))
    start = 14 + len(head)
    data = b"BM" + struct.pack("<IHHI", start + len(body) + len(profile), 0, 0, start) + bytes(head) + body + profile
    photo = read(tmp_path / "a.bmp", data)
    np.testing.assert_array_equal(photo.pixels, picture(3, height=20, width=24))
    assert photo.metadata.icc_profile == profile
    assert read(tmp_path / "b.bmp", data[: -len(profile)]).metadata.icc_profile is None


def test_xmp_of_a_gif(tmp_path: Path) -> None:
    packet = b"<x:xmpmeta>a cat</x:xmpmeta>"
    trailer = b"\x01" + bytes(range(255, -1, -1)) + b"\0"
    plain = saved("GIF")
    place = plain.index(b"\x2c", 13 + 3 * 2 ** ((plain[10] & 7) + 1))
    data = plain[:place] + b"\x21\xff\x0bXMP DataXMP" + packet + trailer + plain[place:]
    photo = read(tmp_path / "a.gif", data)
    np.testing.assert_array_equal(photo.pixels, read(tmp_path / "b.gif", plain).pixels)
    assert photo.metadata.xmp == packet


def as_tiff(samples: np.ndarray, photometric: str, extras: list[str]) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, samples, photometric=photometric, planarconfig="contig", extrasamples=extras)
    return stream.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_of_a_tiff_behind_other_samples(tmp_path: Path, dtype: type, channels: int) -> None:
    pixels = picture(channels + 1, 8 * np.dtype(dtype).itemsize)
    other = pixels[:, :, :1] // 2
    samples = np.concatenate([pixels[:, :, :-1], other, pixels[:, :, -1:]], axis=2)
    data = as_tiff(samples, "minisblack" if channels == 1 else "rgb", ["unspecified", "unassalpha"])
    np.testing.assert_array_equal(read(tmp_path / "a.tif", data).pixels, pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_of_a_cmyk_tiff(tmp_path: Path, dtype: type) -> None:
    pixels = picture(4)
    inks = np.dstack([255 - pixels[:, :, :3], np.zeros_like(pixels[:, :, 0]), pixels[:, :, 3]])
    stored = inks.astype(dtype) * (np.iinfo(dtype).max // 255)
    photo = read(tmp_path / "a.tif", as_tiff(stored, "separated", ["unassalpha"]))
    np.testing.assert_array_equal(photo.pixels, pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_signed_bytes_are_refused(tmp_path: Path, channels: int) -> None:
    data = as_tiff(picture(channels).astype(np.int8).squeeze(), "minisblack" if channels == 1 else "rgb", [])
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(UserError, match="int8 pixels"):
        read_photo(tmp_path / "a.tif")


def test_headers_of_pgm_as_other_systems_write_them(tmp_path: Path) -> None:
    pixels = picture(1)
    rest = b"13 11\n255\n" + pixels.tobytes()
    for start in (b"P5\n#" + b"x" * 5000 + b"\n", b"P5 # of a Mac\r", b"P5\n# 7 7\n#\n"):
        np.testing.assert_array_equal(read(tmp_path / "a.pgm", start + rest).pixels, pixels)
    windows = b"P5\r\n13 11\r\n255\r\n"
    np.testing.assert_array_equal(read(tmp_path / "b.pgm", windows + pixels.tobytes()).pixels, pixels)
    newline_first = np.concatenate([np.full((1, 1, 1), 10, np.uint8), pixels.reshape(-1, 1, 1)[1:]]).reshape(
        pixels.shape
    )
    as_mac = b"P5\r13 11\r255\r" + newline_first.tobytes()
    np.testing.assert_array_equal(read(tmp_path / "c.pgm", as_mac).pixels, newline_first)
    for start in (b"P7\nWIDTH 3\n", b"Pf\n3 3\n-1.0\n"):
        (tmp_path / "d.pgm").write_bytes(start + bytes(99))
        with pytest.raises(UserError, match="PAM or PFM"):
            read_photo(tmp_path / "d.pgm")
