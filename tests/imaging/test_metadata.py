"""What files say besides pixels: kept where it is safe, said where it is not, and never a reason to lose pixels."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from mambair.imaging.exif import orientation_of, upright_block
from mambair.imaging.ifd import ASCII, LONG, RATIONAL, SHORT, UNDEFINED, Page, Tag, build, number_tag
from mambair.imaging.photo import Photo, read_photo, write_photo
from tests.imaging.odd_files import COLOR, exif, picture, png, tiff

TYPES = ("png", "jpg", "webp", "tif", "bmp")
LAYOUT_TAGS = {
    256: 4000,
    257: 3000,
    258: (8, 8, 8),
    259: 5,
    262: 6,
    273: 8,
    277: 1,
    278: 1,
    279: 9,
    284: 2,
    317: 2,
    338: 1,
}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6" xmp:Rating="5"/></x:xmpmeta>'


ODD_TAGS = [
    Tag(99, 3, b"abc"),  # no such type
    Tag(RATIONAL, 1, bytes(8)),  # 0 / 0
    Tag(ASCII, 3, b"\xff\xfe\xfd"),
    Tag(SHORT, 0, b""),
    Tag(UNDEFINED, 70_000, bytes(70_000)),
    Tag(LONG, 2, b"\xff" * 8),
]


@pytest.fixture
def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def saved(path: Path, **options: object) -> Path:
    Image.fromarray(picture(3)).save(path, **options)
    return path


def converted(source: Path, extension: str) -> tuple[Path, tuple[str, ...]]:
    """What restoring makes of a photo but for its pixels; and what was dropped."""
    target = source.with_name(f"result.{extension}")
    return target, write_photo(target, read_photo(source))


@pytest.mark.parametrize("extension", TYPES)
@pytest.mark.parametrize("number", LAYOUT_TAGS)
def test_tags_of_the_layout_of_pixels_change_none(tmp_path: Path, extension: str, number: int) -> None:
    block = Image.Exif()
    block[number], block[271] = LAYOUT_TAGS[number], "Maker"
    source = saved(tmp_path / "a.jpg", exif=block)
    target, _ = converted(source, extension)
    kept = read_photo(target)
    difference = np.abs(kept.pixels.astype(int) - read_photo(source).pixels)
    assert difference.max() <= (20 if extension in ("jpg", "webp") else 0)
    with Image.open(target) as image:
        image.load()
        if extension in ("jpg", "webp", "png"):
            assert number not in image.getexif() and image.getexif()[271] == "Maker"


@pytest.mark.parametrize("odd", ODD_TAGS)
@pytest.mark.parametrize("number", [270, 282, 305, 0x8769, 0x8825, 34_000])
@pytest.mark.parametrize("extension", ["png", "jpg", "tif", "webp"])
def test_odd_tags_cost_nothing_but_themselves(tmp_path: Path, number: int, odd: Tag, extension: str) -> None:
    tags = {271: Tag(ASCII, 6, b"Maker\0"), number: odd}
    data = png(picture(3), 8, COLOR, [(b"eXIf", build([Page(tags, {})]))])
    (tmp_path / "a.png").write_bytes(data)
    target, _ = converted(tmp_path / "a.png", extension)
    with Image.open(target) as image:
        image.load()
        assert np.asarray(image).shape == (11, 13, 3)
        if len(odd.data) < 65_000:
            assert image.getexif()[271] == "Maker"


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("odd", ODD_TAGS)
@pytest.mark.parametrize("number", [270, 282, 296, 305, 320, 700, 0x8769, 0x8825, 33_723, 34_675, 34_377, 40_000])
def test_odd_tags_of_a_tiff_cost_no_pixels(tmp_path: Path, number: int, odd: Tag, bits: int) -> None:
    pixels = picture(3, bits)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(pixels, bits, 2, {274: [6]}, {number: odd}))
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.pixels, np.rot90(pixels, -1))
    write_photo(tmp_path / "b.tif", photo)
    np.testing.assert_array_equal(read_photo(tmp_path / "b.tif").pixels, photo.pixels)


def test_random_exif_is_read_or_left(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = build(
        [Page({271: Tag(ASCII, 6, b"Maker\0"), 282: Tag(RATIONAL, 1, bytes(8))}, {0x8769: {1: Tag(3, 1, b"ab")}})]
    )
    for _ in range(500):
        block = bytearray(whole[: rng.integers(0, len(whole) + 1)])
        for place in rng.integers(0, len(block), 3) if block else ():
            block[place] = rng.integers(0, 256)
        assert orientation_of(bytes(block)) in range(1, 9)
        kept = upright_block(bytes(block))
        assert kept is None or upright_block(kept) == kept


def test_makers_notes_stay_where_they_are() -> None:
    note = Tag(UNDEFINED, 40, b"offsets into the block are not changed..")
    block = build([Page({274: number_tag(SHORT, [6], "<"), 271: Tag(ASCII, 6, b"Maker\0")}, {0x8769: {0x927C: note}})])
    kept = upright_block(block)
    assert kept is not None and kept.find(note.data) == block.find(note.data) > 0
    assert orientation_of(kept) == 1


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "tEXt"])
@pytest.mark.parametrize("length", [10, 2**20 + 1, 30 * 2**20])
def test_texts_of_any_length_cost_no_pixels(tmp_path: Path, kind: str, length: int) -> None:
    text = b"steps: 20 " * (length // 10 + 1)
    body = {
        "zTXt": b"parameters\0\0" + zlib.compress(text),
        "iTXt": b"parameters\0\1\0\0\0" + zlib.compress(text),
        "tEXt": b"parameters\0" + text,
    }[kind]
    (tmp_path / "a.png").write_bytes(png(picture(3), 8, COLOR, [(kind.encode(), body)]))
    target, dropped = converted(tmp_path / "a.png", "png")
    with Image.open(target) as image:
        image.load()
        np.testing.assert_array_equal(np.asarray(image), picture(3))
        assert ("parameters" in image.info) == (length < 2**20)
    assert bool(dropped) == (length > 2**20)


def test_profiles_are_cut_where_they_say_they_end(tmp_path: Path, profile: bytes) -> None:
    source = saved(tmp_path / "a.png", icc_profile=profile + bytes(3_000_000))
    for extension in ("png", "jpg", "tif", "webp"):
        with Image.open(converted(source, extension)[0]) as image:
            assert image.info["icc_profile"] == profile


@pytest.mark.parametrize("extension", TYPES)
@pytest.mark.parametrize("source", ["jpg", "png", "tif", "bmp"])
def test_the_resolution_is_kept(tmp_path: Path, source: str, extension: str) -> None:
    path = saved(tmp_path / f"a.{source}", dpi=(300, 150))
    target, dropped = converted(path, extension)
    assert dropped == ()
    kept = read_photo(target).metadata.resolution
    assert kept is not None and np.allclose(kept, (300, 150), atol=0.1)
    if extension != "webp":
        with Image.open(target) as image:
            assert np.allclose([float(value) for value in image.info["dpi"]], (300, 150), atol=0.1)


def test_the_resolution_turns_with_the_image(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", dpi=(300, 150), exif=b"Exif\0\0" + exif(6))
    assert read_photo(path).metadata.resolution == (150, 300)


@pytest.mark.parametrize("source", ["jpg", "webp", "tif", "png"])
@pytest.mark.parametrize("extension", ["jpg", "webp", "tif", "png"])
def test_xmp_and_exif_go_from_every_type_into_every_other(tmp_path: Path, source: str, extension: str) -> None:
    block = Image.Exif()
    block[274], block[271], block[33432] = 6, "Maker", "Someone"
    block.get_ifd(ExifTags.IFD.Exif)[33434] = 0.01
    block.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    if source == "png":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        path = saved(tmp_path / "a.png", exif=block, pnginfo=info)
    elif source == "tif":
        path = tmp_path / "a.tif"  # Pillow writes no such TIFF
        write_photo(path, read_photo(saved(tmp_path / "a.jpg", exif=block, xmp=XMP)))
    else:
        path = saved(tmp_path / f"a.{source}", exif=block, xmp=XMP)
    target, dropped = converted(path, extension)
    assert dropped == ()
    upright = XMP.replace(b'"6"', b'"1"')
    with Image.open(target) as image:
        assert image.size == (11, 13)
        kept = image.getexif()
        assert kept.get(274, 1) == 1 and kept[33432] == "Someone" and kept[271] == "Maker"
        assert float(kept.get_ifd(ExifTags.IFD.Exif)[33434]) == 0.01
        assert kept.get_ifd(ExifTags.IFD.GPSInfo)[1] == "N"
    assert read_photo(target).metadata.xmp == upright


def test_iptc_and_comments(tmp_path: Path) -> None:
    iptc = b"\x1c\x02\x78\x00\x07caption"
    resources = b"Photoshop 3.0\0" + b"8BIM" + struct.pack(">HBBI", 1005, 0, 0, 3) + b"abc\0"
    resources += b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(iptc)) + iptc
    data = io.BytesIO()
    Image.fromarray(picture(3)).save(data, "JPEG", comment="hello")
    whole = data.getvalue()
    segment = b"\xff\xed" + struct.pack(">H", len(resources) + 2) + resources
    (tmp_path / "a.jpg").write_bytes(whole[:2] + segment + whole[2:])
    for extension in ("jpg", "tif", "png"):
        target, dropped = converted(tmp_path / "a.jpg", extension)
        assert dropped == () and read_photo(target).metadata.iptc == iptc
    assert converted(tmp_path / "a.jpg", "webp")[1] == ("IPTC (no place in WebP)", "the comment (no place in WebP)")
    target, _ = converted(tmp_path / "a.jpg", "png")
    with Image.open(target) as image:
        assert image.info["Comment"] == "hello"
    with Image.open(converted(target, "jpg")[0]) as image:
        assert image.info["comment"] == b"hello"


def test_what_has_no_place_is_said(tmp_path: Path, profile: bytes) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat")
    path = saved(tmp_path / "a.png", pnginfo=info, icc_profile=profile, dpi=(72, 72))
    assert converted(path, "png")[1] == ()
    assert converted(path, "jpg")[1] == ("PNG text (no place in JPEG)",)
    assert converted(path, "bmp")[1] == (
        "the colour profile (no place in BMP)",
        "PNG text (no place in BMP)",
    )


def test_exif_in_the_old_texts_of_imagemagick(tmp_path: Path) -> None:
    digits = (b"Exif\0\0" + exif(6, {271: Tag(ASCII, 6, b"Maker\0")})).hex().encode()
    text = b"\nexif\n%8d\n%s\n" % (len(digits) // 2, digits)
    chunk = (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))
    (tmp_path / "a.png").write_bytes(png(picture(3), 8, COLOR, [chunk]))
    target, _ = converted(tmp_path / "a.png", "png")
    with Image.open(target) as image:
        image.load()
        assert image.size == (11, 13) and image.getexif()[271] == "Maker" and 274 not in image.getexif()


def test_descriptions_of_shapes_are_not_kept(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", picture(3), photometric="rgb")  # which writes {"shape": ...}
    photo = read_photo(tmp_path / "a.tif")
    write_photo(tmp_path / "b.tif", Photo(np.repeat(photo.pixels, 2, axis=0), photo.metadata))
    with tifffile.TiffFile(tmp_path / "b.tif") as archive:
        assert 270 not in archive.pages[0].tags
        assert archive.asarray().shape == (22, 13, 3)
