"""Image files to arrays and back.

Arrays are HxWxC in RGB order, uint8, or uint16 where the file has 16 bits. OpenCV decodes, so that training reads the
pixels that published models were trained on; Pillow reads the headers. The EXIF orientation is applied, as OpenCV does.
"""

from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from mambair.errors import UserError
from mambair.imaging.color import rgb_to_y
from mambair.imaging.headers import ImageHeader, parse_header, printable, read_image_size, unreadable
from mambair.imaging.orientation import apply_orientation
from mambair.imaging.tiff import as_mode, decode_tiff
from mambair.runtime.files import atomic_write

__all__ = [
    "IMAGE_EXTENSIONS",
    "ColorMode",
    "apply_orientation",
    "decode_image",
    "encode_image",
    "list_images",
    "printable",
    "read_bytes",
    "read_image",
    "read_image_size",
    "write_image",
]

ColorMode = Literal["color", "gray", "y", "unchanged"]

IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
_PNG_END = b"IEND\xaeB`\x82"
_READ_FLAGS = {
    "color": cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION,
    "gray": cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION,
    "unchanged": cv2.IMREAD_UNCHANGED,
}

# OpenCV's own messages name no file; ours do.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_bytes(path: str | Path) -> bytes:
    """The content of a file; UserError naming it where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def read_image(path: str | Path, mode: ColorMode = "color", allow_gray: bool = False) -> np.ndarray:
    """Read and decode an image file; see `decode_image`."""
    return decode_image(read_bytes(path), mode, name=path, allow_gray=allow_gray)


def decode_image(
    data: bytes, mode: ColorMode = "color", *, name: str | Path = "image", allow_gray: bool = False
) -> np.ndarray:
    """Decode an image held in memory.

    Args:
        data: the encoded file.
        mode: color: HxWx3, alpha dropped; gray: HxWx1, colour files converted by BT.601 full-range luma;
            y: HxWx1, colour files converted to the rounded Y of MATLAB's rgb2ycbcr (16 to 235), gray ones as they are;
            unchanged: the channels of the file, HxWx1, HxWx3 or HxWx4, palettes expanded.
        name: file that errors name.
        allow_gray: let mode "color" repeat the channel of a gray file three times.

    Returns:
        uint8 or uint16 array, contiguous, RGB order.

    Raises:
        UserError: no image, damaged, truncated, too large, of a depth other than 8 or 16 bits, or gray
            where colour is asked for.
    """
    header = parse_header(data, name)
    if mode == "color" and header.channels < 3 and not allow_gray:
        raise UserError(f"{printable(name)}: is a gray image where colour is expected; convert it or remove it")
    _check_complete(data, header, name)
    if header.separate_planes:
        return _decode_rare_tiff(data, mode, name)
    flags = _READ_FLAGS["gray" if header.channels < 3 else "color"] if mode == "y" else _READ_FLAGS[mode]
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise UserError(f"{printable(name)}: OpenCV cannot decode it ({error.err})") from error
    if image is None and header.format == "TIFF":
        return _decode_rare_tiff(data, mode, name)
    if image is None:
        raise UserError(
            f"{printable(name)}: damaged, or a kind of {header.format} that OpenCV cannot decode; replace or remove it"
        )
    _check_depth(image, name)
    if image.ndim == 2:
        image = image[:, :, None]
    image = apply_orientation(image, header.orientation)
    if image.shape[2] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return _rounded_luma(image) if mode == "y" else image
    if image.shape[2] == 4:
        return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)
    return np.ascontiguousarray(image)


def _decode_rare_tiff(data: bytes, mode: ColorMode, name: str | Path) -> np.ndarray:
    image = _check_depth(decode_tiff(data, name), name)
    if mode != "y":
        return as_mode(image, mode)
    return image[:, :, :1] if image.shape[2] < 3 else _rounded_luma(image[:, :, :3])


def _rounded_luma(image: np.ndarray) -> np.ndarray:
    """The Y of MATLAB's rgb2ycbcr, (H, W, 1), on the scale of the RGB image's type."""
    luma = rgb_to_y(image) * (np.iinfo(image.dtype).max / 255)
    return np.rint(luma).astype(image.dtype)[:, :, None]


def _check_depth(image: np.ndarray, name: str | Path) -> np.ndarray:
    if image.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{printable(name)}: has {image.dtype} pixels; convert it to 8 or 16 bits per channel")
    return image


def _check_complete(data: bytes, header: ImageHeader, name: str | Path) -> None:
    """Refuse truncated files: some versions of OpenCV decode them to a partly gray image."""
    if header.format == "PNG" and data.rfind(_PNG_END) < 0:
        raise UserError(f"{printable(name)}: truncated PNG; replace or remove it")
    if header.format in ("JPEG", "MPO") and not _has_end_of_image(data):
        raise UserError(f"{printable(name)}: truncated JPEG; replace or remove it")


def _has_end_of_image(data: bytes) -> bool:
    """Whether a JPEG's compressed pixels are followed by the end marker (an EXIF thumbnail's own does not count)."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # padding between segments
            position += 1
            continue
        if marker == 0xDA:  # start of scan: byte stuffing keeps 0xFFD9 out of the compressed data that follows
            return data.find(b"\xff\xd9", position) >= 0
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def encode_image(image: np.ndarray, extension: str, *, jpeg_quality: int = 95, png_level: int | None = None) -> bytes:
    """Encode an HxW or HxWxC array (uint8 or uint16; gray, RGB or RGBA) as the file type of `extension` ('.png').

    `jpeg_quality` is 1 to 100; `png_level` is zlib's 0 to 9, OpenCV's choice if left out.
    """
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"cannot write {image.dtype} pixels; convert to uint8 or uint16")
    if extension.lower() not in IMAGE_EXTENSIONS:
        raise UserError(f"cannot write '{extension}' images; use one of {', '.join(sorted(IMAGE_EXTENSIONS))}")
    channels = image.shape[2] if image.ndim == 3 else 1
    if channels == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    elif channels == 4:
        image = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA)
    parameters = []
    if extension.lower() in (".jpg", ".jpeg"):
        parameters = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
    elif extension.lower() == ".png" and png_level is not None:
        parameters = [cv2.IMWRITE_PNG_COMPRESSION, png_level]
    try:
        written, data = cv2.imencode(extension.lower(), image, parameters)
    except cv2.error as error:
        raise ValueError(f"OpenCV cannot encode {image.shape} {image.dtype} as {extension}: {error.err}") from error
    if not written:
        raise ValueError(f"OpenCV cannot encode {image.shape} {image.dtype} as {extension}")
    return data.tobytes()


def write_image(path: str | Path, image: np.ndarray, jpeg_quality: int = 95) -> None:
    """Write an image by the file type of the path's extension; makes parent folders.

    The file appears whole or not at all: it is written beside its place and renamed.
    """
    path = Path(path)
    data = encode_image(image, path.suffix, jpeg_quality=jpeg_quality)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def list_images(folder: str | Path) -> list[Path]:
    """The image files directly in a folder, sorted by name; hidden files are left out."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{printable(folder)}: no such folder")
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in IMAGE_EXTENSIONS and not entry.name.startswith(".") and entry.is_file()
    )
