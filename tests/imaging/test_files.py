"""Image files: what is read, what is refused, how it is written."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mambair.errors import UserError
from mambair.imaging.files import decode_image, list_images, read_image, write_image
from mambair.imaging.headers import parse_header, read_image_size

PHOTO = skimage.data.astronaut()[:40, 100:160]


def encoded(image: np.ndarray, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return stream.getvalue()


def declared_png(width: int, height: int) -> bytes:
    """A small PNG whose header declares a large image."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM"])
def test_reads_what_pillow_and_opencv_read(kind: str) -> None:
    data = encoded(PHOTO, kind)
    image = decode_image(data)
    np.testing.assert_array_equal(image, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    gray = decode_image(data, "gray")
    assert gray.shape == (40, 60, 1)
    np.testing.assert_array_equal(gray[..., 0], cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_and_known_from_the_header(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(PHOTO, kind, exif=exif)
    image = decode_image(data)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(image, expected)
    header = parse_header(data, "photo")
    assert (header.height, header.width, header.channels) == image.shape
    np.testing.assert_array_equal(decode_image(data, "unchanged"), image)


def test_luma_is_matlabs_rounded_and_gray_files_stay(tmp_path: Path) -> None:
    write_image(tmp_path / "photo.png", PHOTO)
    luma = read_image(tmp_path / "photo.png", "y")
    red, green, blue = PHOTO.astype(np.float64).transpose(2, 0, 1)
    expected = np.rint(16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255)
    np.testing.assert_array_equal(luma[..., 0], expected)
    assert luma.dtype == np.uint8
    write_image(tmp_path / "gray.png", PHOTO[..., :1])
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png", "y"), PHOTO[..., :1])
    write_image(tmp_path / "alpha.png", np.dstack([PHOTO, PHOTO[..., 0]]))
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png", "y"), luma)
    write_image(tmp_path / "deep.png", PHOTO.astype(np.uint16) * 257)
    deep = read_image(tmp_path / "deep.png", "y")
    assert deep.dtype == np.uint16 and np.abs(deep / 257.0 - luma).max() <= 0.51


def test_depth_alpha_and_palette(tmp_path: Path) -> None:
    deep = (PHOTO.astype(np.uint16) * 257)[..., :3]
    write_image(tmp_path / "deep.png", deep)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), deep)
    alpha = np.dstack([PHOTO, PHOTO[..., 0]])
    write_image(tmp_path / "alpha.png", alpha)
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png", "unchanged"), alpha)
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), PHOTO)
    palette = Image.fromarray(PHOTO).quantize(16)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), np.asarray(palette.convert("RGB")))
    assert read_image_size(tmp_path / "deep.png") == (40, 60, 3)
    assert read_image_size(tmp_path / "alpha.png") == (40, 60, 4)
    assert read_image_size(tmp_path / "palette.png") == (40, 60, 3)


def test_gray_where_colour_is_expected_has_three_equal_channels(tmp_path: Path) -> None:
    write_image(tmp_path / "gray.png", PHOTO[..., :1])
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png"), PHOTO[..., [0, 0, 0]])
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png", "gray"), PHOTO[..., :1])
    assert read_image_size(tmp_path / "gray.png") == (40, 60, 1)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.7, 0.99])
def test_truncated_files_are_refused(kind: str, share: float) -> None:
    data = encoded(PHOTO, kind)
    with pytest.raises(UserError, match=r"^cut:"):
        decode_image(data[: int(share * len(data))], name="cut")


def test_a_truncated_jpeg_with_a_whole_thumbnail_is_refused() -> None:
    thumbnail = b"Exif\0\0" + encoded(PHOTO[:8, :8], "JPEG")
    data = encoded(PHOTO, "JPEG", exif=thumbnail)
    assert data.count(b"\xff\xd9") == 2
    with pytest.raises(UserError, match=r"^cut:"):
        decode_image(data[:-40], name="cut")


@pytest.mark.parametrize("position", [0.2, 0.5, 0.8])
def test_a_flipped_bit_in_a_png_is_noticed(position: float) -> None:
    data = bytearray(encoded(PHOTO, "PNG"))
    data[int(position * len(data))] ^= 4
    with pytest.raises(UserError, match=r"^photo: damaged"):
        decode_image(bytes(data), name="photo")


SAMPLES = [encoded(PHOTO[:9, :11], kind) for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF")]
EDIT = st.tuples(st.floats(0, 1), st.integers(0, 6), st.binary(max_size=6))


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(SAMPLES),
    st.lists(EDIT, min_size=1, max_size=4),
    st.sampled_from(["color", "gray", "y", "unchanged"]),
)
def test_damaged_files_give_an_image_or_a_message(data: bytes, edits: list, mode: str) -> None:
    for place, removed, inserted in edits:
        position = int(place * len(data))
        data = data[:position] + inserted + data[position + removed :]
    try:
        image = decode_image(data, mode, name="photo")
    except UserError as error:
        assert str(error).startswith("photo: ")
        assert "\n" not in str(error)
    else:
        assert image.dtype in (np.uint8, np.uint16)
        assert image.shape[2] in {"color": (3,), "gray": (1,), "y": (1,), "unchanged": (1, 2, 3, 4)}[mode]


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("not an image")
    with pytest.raises(UserError, match=r"notes\.png: not an image"):
        read_image(tmp_path / "notes.png")
    with pytest.raises(UserError, match="no such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(UserError, match="cannot be read"):
        read_image(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        list_images(tmp_path / "missing")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(60000, 60000), (12000, 12000)])
def test_image_bombs_are_refused_unless_the_limit_is_raised(size: tuple[int, int], monkeypatch) -> None:
    data = declared_png(*size)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    with pytest.raises(UserError, match="MAMBAIR_MAX_PIXELS"):
        decode_image(data, name="bomb.png")
    monkeypatch.setenv("MAMBAIR_MAX_PIXELS", str(2**33))
    assert (parse_header(data, "bomb.png").width, parse_header(data, "bomb.png").height) == size


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_limit_can_be_lowered_and_must_be_a_number(monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setenv("MAMBAIR_MAX_PIXELS", "2399")
    with pytest.raises(UserError, match="2399"):
        decode_image(encoded(PHOTO, "PNG"))
    monkeypatch.setenv("MAMBAIR_MAX_PIXELS", "many")
    with pytest.raises(UserError, match="positive number of pixels, got 'many'"):
        decode_image(encoded(PHOTO, "PNG"))


@pytest.mark.parametrize("name", ["two words.png", "Größe 大きさ.png", "new\nline.png", "quo'te\".PNG", "-dash.png"])
def test_unusual_names(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / "sub" / name, PHOTO)
    assert list_images(tmp_path / "sub") == [tmp_path / "sub" / name]
    np.testing.assert_array_equal(read_image(tmp_path / "sub" / name), PHOTO)
    with pytest.raises(UserError) as raised:
        read_image(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_listing_is_sorted_and_leaves_out_what_is_no_image(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.tif"):
        (tmp_path / name).write_bytes(b"")
    for name in ("._b.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.JPG", "b.png", "c.tif"]


def test_writing_replaces_whole_files_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    write_image(path, PHOTO)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="float"):
        write_image(path, PHOTO / 255.0)
    with pytest.raises(UserError, match="cannot write"):
        write_image(tmp_path / "image.xyz", PHOTO)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["image.png"]
