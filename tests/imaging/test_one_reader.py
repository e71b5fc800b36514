"""Restoring, training and testing read the same pixels, whatever type, depth and tags a file has."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from mambair.errors import UserError
from mambair.imaging.files import decode_image, read_image, read_image_size
from mambair.imaging.optional_formats import openable
from mambair.imaging.orientation import apply_orientation
from mambair.imaging.photo import read_photo
from mambair.imaging.pnm import decode_pnm
from tests.imaging.odd_files import COLOR, COLOR_ALPHA, GRAY, GRAY_ALPHA, PALETTE, exif, picture, png, tiff

CHANNELS = {GRAY: 1, COLOR: 3, PALETTE: 1, GRAY_ALPHA: 2, COLOR_ALPHA: 4}


def assert_read(path: Path, data: bytes, wanted: np.ndarray, tolerance: int = 0) -> None:
    """All ways of reading give `wanted`, (H, W, C)."""
    path.write_bytes(data)
    photo = read_photo(path).pixels
    assert (photo.dtype, photo.shape) == (wanted.dtype, wanted.shape)
    assert np.abs(photo.astype(int) - wanted).max() <= tolerance
    np.testing.assert_array_equal(read_image(path, "unchanged"), photo)
    colors = photo[:, :, [0, 0, 0]] if photo.shape[2] < 3 else photo[:, :, :3]
    np.testing.assert_array_equal(read_image(path), colors)
    for mode in ("gray", "y"):
        assert read_image(path, mode).shape == (*photo.shape[:2], 1)
        if photo.shape[2] < 3:
            np.testing.assert_array_equal(read_image(path, mode), photo[:, :, :1])
    gray = read_image(path, "gray").astype(int)[:, :, 0]
    assert np.abs(gray - colors.astype(int) @ [0.299, 0.587, 0.114]).max() <= 2
    assert read_image_size(path) == photo.shape


def spread(values: np.ndarray, depth: int) -> np.ndarray:
    """Values of any depth as they are to be read: 8 bits, or 16 for more."""
    dtype = np.uint8 if depth <= 8 else np.uint16
    return np.rint(values * (np.iinfo(dtype).max / (2**depth - 1))).astype(dtype)


def with_alpha(pixels: np.ndarray, transparent: np.ndarray) -> np.ndarray:
    white = np.iinfo(pixels.dtype).max
    return np.dstack([pixels, np.where(transparent, 0, white).astype(pixels.dtype)])


@pytest.mark.parametrize(
    ("color", "depth"),
    [*((GRAY, depth) for depth in (1, 2, 4, 8, 16)), *((kind, d) for kind in (2, 4, 6) for d in (8, 16))],
)
@pytest.mark.parametrize("tag", ["none", "orientation", "orientation behind", "colors", "transparent", "text"])
def test_png(tmp_path: Path, color: int, depth: int, tag: str) -> None:
    values = picture(CHANNELS[color], depth)
    wanted = spread(values, depth)
    before, after = [], []
    if tag == "orientation":
        before, wanted = [(b"eXIf", exif(6))], apply_orientation(wanted, 6)
    elif tag == "orientation behind":
        after, wanted = [(b"eXIf", exif(5))], apply_orientation(wanted, 5)
    elif tag == "colors":
        before = [(b"gAMA", struct.pack(">I", 100_000)), (b"cICP", bytes([9, 16, 0, 1])), (b"sBIT", bytes([3] * 4))]
    elif tag == "transparent" and color in (GRAY, COLOR):
        hidden = values[3, 4]
        before = [(b"tRNS", hidden.astype(">u2").tobytes())]
        wanted = with_alpha(wanted, (values == hidden).all(axis=2))
    elif tag == "text":
        before = [(b"zTXt", b"damaged\0\0no zlib"), (b"iTXt", b""), (b"tEXt", b"\xff" * 70), (b"iCCP", b"x\0\0none")]
    assert_read(tmp_path / "a.png", png(values, depth, color, before, after), wanted)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("transparent", [False, True])
def test_png_palette(tmp_path: Path, depth: int, transparent: bool) -> None:
    values = picture(1, depth)
    palette = np.random.default_rng(0).integers(0, 256, (2**depth, 3), dtype=np.uint8)
    chunks = [(b"PLTE", palette.tobytes())] + [(b"tRNS", bytes([0, 128]))] * transparent
    wanted = palette[values[:, :, 0]]
    if transparent:
        alpha = np.full(2**depth, 255, np.uint8)
        alpha[:2] = 0, 128
        wanted = np.dstack([wanted, alpha[values[:, :, 0]]])
    assert_read(tmp_path / "a.png", png(values, depth, PALETTE, chunks), wanted)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("tag", ["none", "turned", "premultiplied", "no alpha", "white is zero"])
def test_tiff(tmp_path: Path, bits: int, channels: int, tag: str) -> None:
    values = picture(channels, bits)
    white, more = 2**bits - 1, {}
    wanted, photometric, tolerance = spread(values, bits), 1 if channels < 3 else 2, 0
    if channels in (2, 4):
        more[338] = [2]
    if tag == "turned":
        more[274], wanted = [8], apply_orientation(wanted, 8)
    elif tag == "premultiplied" and channels in (2, 4):
        more[338] = [1]
        alpha = values[:, :, -1:] / white
        values = np.dstack([np.rint(values[:, :, :-1] * alpha), values[:, :, -1:]]).astype(values.dtype)
        visible = values[:, :, -1] > white // 3
        wanted[~visible] = read_back(tiff(values, bits, photometric, more))[~visible]
        tolerance = 3 if bits == 8 else 2 ** (18 - bits)
    elif tag == "no alpha" and channels in (2, 4):
        more[338], wanted = [0], wanted[:, :, :-1]
        if (channels, bits) == (2, 8):
            pytest.skip("Pillow makes it opaque")
    elif tag == "white is zero" and channels == 1:
        photometric, values = 0, white - values
    assert_read(tmp_path / "a.tif", tiff(values, bits, photometric, more), wanted, tolerance)


def read_back(data: bytes) -> np.ndarray:
    return decode_image(data, "unchanged")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzma"])
def test_tiff_layouts(tmp_path: Path, dtype: type, byteorder: str, planar: str, compression: str | None) -> None:
    pixels = picture(3, 8 * np.dtype(dtype).itemsize)
    stored = pixels if planar == "contig" else np.moveaxis(pixels, 2, 0).copy()
    stream = io.BytesIO()
    tifffile.imwrite(
        stream, stored, photometric="rgb", planarconfig=planar, byteorder=byteorder, compression=compression
    )
    assert_read(tmp_path / "a.tif", stream.getvalue(), pixels)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("orientation", [1, 2, 7, 8])
def test_tiff_of_16_bits_compressed_by_lzw(tmp_path: Path, channels: int, orientation: int) -> None:
    pixels = picture(channels, 16)
    _, data = cv2.imencode(".tif", cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA) if channels == 4 else pixels[..., ::-1])
    encoded = bytearray(data.tobytes())
    with tifffile.TiffFile(io.BytesIO(encoded)) as archive:
        assert archive.pages[0].compression == tifffile.COMPRESSION.LZW
        pages = archive.pages[0]
        offset = pages.tags["PlanarConfiguration"].offset
    # OpenCV writes no orientation: the tag that names the usual plan of channels becomes one.
    struct.pack_into("<HHIHH", encoded, offset, 274, 3, 1, orientation, 0)
    assert_read(tmp_path / "a.tif", bytes(encoded), apply_orientation(pixels, orientation))


def lab_of(rgb: np.ndarray, bits: int) -> np.ndarray:
    """sRGB (N, 3) uint8 as TIFF stores CIE L*a*b*, by scikit-image."""
    from skimage.color import rgb2xyz

    adapted = np.array([[1.0478112, 0.0228866, -0.0501270], [0.0295424, 0.9904844, -0.0170491],
                        [-0.0092345, 0.0150436, 0.7521316]])  # fmt: skip
    xyz = rgb2xyz(rgb / 255.0) @ adapted.T / [0.96422, 1, 0.82521]
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    lab = np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)
    scale = np.array([2.55, 1, 1]) if bits == 8 else np.array([655.35, 256, 256])
    return np.rint(lab * scale).astype(np.int64) & (2**bits - 1)


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_of_cielab_becomes_srgb(tmp_path: Path, bits: int) -> None:
    pixels = picture(3)
    wanted = pixels if bits == 8 else pixels.astype(np.uint16) * 257
    stored = lab_of(pixels, bits).astype(np.uint16)
    assert_read(tmp_path / "a.tif", tiff(stored, bits, 8), wanted, tolerance=6 if bits == 8 else 200)


def test_tiff_of_iccs_lab(tmp_path: Path) -> None:
    stored = np.array([[[0xFF00, 0x8000, 0x8000], [0, 0x8000, 0x8000], [0x7F80, 0x8000, 0x8000]]], np.uint16)
    (tmp_path / "a.tif").write_bytes(tiff(stored, 16, 9))
    gray = np.asarray(read_photo(tmp_path / "a.tif").pixels)[0] / 257
    np.testing.assert_allclose(gray, [[255] * 3, [0] * 3, [119] * 3], atol=1)


@pytest.mark.parametrize("top", [1, 100, 255, 1023, 4095, 65535])
@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
def test_pgm_and_ppm_of_any_largest_value(tmp_path: Path, top: int, kind: str) -> None:
    channels = 3 if kind in ("P3", "P6") else 1
    values = np.rint(picture(channels) / 255 * top).astype(int)
    head = f"{kind} # a comment\n# another\n{values.shape[1]} {values.shape[0]}\n{top}\n".encode()
    if kind in ("P2", "P3"):
        body = "\n".join(" ".join(map(str, row.ravel())) for row in values).encode()
    else:
        body = values.astype(np.uint8 if top <= 255 else ">u2").tobytes()
    dtype = np.uint8 if top <= 255 else np.uint16
    wanted = np.rint(values * (np.iinfo(dtype).max / top)).astype(dtype)
    assert_read(tmp_path / "a.ppm", head + body, wanted)


def test_bitmaps_are_black_where_they_are_set() -> None:
    np.testing.assert_array_equal(decode_pnm(b"P1\n3 2\n101\n0 1 0\n")[:, :, 0], [[0, 255, 0], [255, 0, 255]])
    np.testing.assert_array_equal(decode_pnm(b"P4 3 2\n\xa0\x40")[:, :, 0], [[0, 255, 0], [255, 0, 255]])


@pytest.mark.parametrize(
    "damage", [b"P5\n", b"P5 3 2 255\n12345", b"P5 0 2 255\n", b"P2 2 1 255\n1 x", b"P6 1 1 70000\n"]
)
def test_damaged_pgm_is_named(damage: bytes) -> None:
    with pytest.raises(UserError, match=r"^scan: damaged"):
        decode_image(damage, name="scan")


def bmp_with_masks(pixels: np.ndarray) -> bytes:
    """RGBA as BMP of 32 bits whose header says where alpha is."""
    body = np.ascontiguousarray(pixels[::-1, :, [2, 1, 0, 3]]).tobytes()
    head = struct.pack("<IiiHHIIiiII", 108, pixels.shape[1], pixels.shape[0], 1, 32, 3, len(body), 2835, 2835, 0, 0)
    head += struct.pack("<4I4s", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs") + bytes(48)
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(stream, kind, **options)
    return stream.getvalue()


def test_bmp(tmp_path: Path) -> None:
    assert_read(tmp_path / "a.bmp", bmp_with_masks(picture(4)), picture(4))
    for channels in (1, 3):
        assert_read(tmp_path / "a.bmp", encoded(picture(channels), "BMP"), picture(channels))
    no_alpha = bytearray(encoded(picture(3), "BMP"))  # 32 bits of which 8 mean nothing
    pixels = np.dstack([picture(3)[::-1, :, ::-1], np.zeros((11, 13), np.uint8)]).tobytes()
    struct.pack_into("<H", no_alpha, 28, 32)
    assert_read(tmp_path / "a.bmp", bytes(no_alpha[:54]) + pixels, picture(3))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("make", [lambda block: encoded(picture(3), "WEBP", lossless=True, exif=b"Exif\0\0" + block)])
def test_webp(tmp_path: Path, orientation: int, make: Callable[[bytes], bytes]) -> None:
    assert_read(tmp_path / "a.webp", make(exif(orientation)), apply_orientation(picture(3), orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg(tmp_path: Path, channels: int, orientation: int) -> None:
    pixels = picture(channels, height=32, width=48)
    data = encoded(pixels, "JPEG", quality=98, subsampling=0, exif=b"Exif\0\0" + exif(orientation))
    assert_read(tmp_path / "a.jpg", data, apply_orientation(pixels, orientation), tolerance=9)


def test_odd_names_of_jpeg_files(tmp_path: Path) -> None:
    for name in ("a.jfif", "a.JPE", "a.png"):  # the content decides
        (tmp_path / name).write_bytes(encoded(picture(3), "JPEG"))
        np.testing.assert_array_equal(read_photo(tmp_path / name).pixels, read_image(tmp_path / name))


def test_jpeg_of_12_bits_is_called_what_it_is() -> None:
    data = bytearray(encoded(picture(3), "JPEG"))
    start = data.find(b"\xff\xc0")
    data[start + 1], data[start + 4] = 0xC1, 12
    with pytest.raises(UserError, match=r"^scan: a JPEG of 12 bits, which is not read; save it as PNG or TIFF"):
        decode_image(bytes(data), name="scan")


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_avif_and_heic_where_they_are_read(tmp_path: Path, kind: str) -> None:
    if kind not in openable():
        pytest.skip("not read here")
    pixels = np.repeat(np.repeat(picture(3), 4, axis=0), 4, axis=1)
    Image.fromarray(pixels).save(tmp_path / "source", kind, quality=95)
    data = (tmp_path / "source").read_bytes()
    assert_read(tmp_path / "a.bin", data, pixels, tolerance=24)
