"""Colour profiles: what they are for, colours converted by them, and profiles made of what a PNG says of its colours.

Sources: ICC.1:2022, ITU-T H.273 (code points), CIE 15 (L*a*b*), the sRGB standard IEC 61966-2-1.
"""

import io
import struct
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from mambair.imaging.png import Chunk

_SPACE = slice(16, 20)
_SPACES = {b"GRAY": (1, 2), b"RGB ": (3, 4)}
_HEADER_LENGTH = 128

# The levels of R, G and B whose colours are compared, and the difference (of 255) that two roundings make.
_COMPARED_LEVELS = (0, 32, 64, 96, 128, 160, 192, 224, 255)
SAME_COLORS = 3

D50 = np.array([0.96422, 1.0, 0.82521])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

Chromaticities = Sequence[tuple[float, float]]
"""x and y of white, red, green and blue."""

SRGB_PRIMARIES: Chromaticities = ((0.3127, 0.3290), (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_PRIMARIES = {  # H.273's numbers
    1: SRGB_PRIMARIES,
    4: ((0.310, 0.316), (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: ((0.3127, 0.3290), (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: ((0.3127, 0.3290), (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: ((0.3127, 0.3290), (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    8: ((0.310, 0.316), (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: ((0.3127, 0.3290), (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: ((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: ((0.3127, 0.3290), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: ((0.3127, 0.3290), (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_VIDEO_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_CURVES: dict[int, tuple[float, ...]] = {4: (2.2,), 5: (2.8,), 8: (1.0,), 13: _SRGB_CURVE}
_CURVES |= dict.fromkeys((1, 6, 11, 12, 14, 15), _VIDEO_CURVE)
_CURVES[7] = (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0913)
_UNSPECIFIED = 2
_CHUNK_BYTES = {b"cICP": 4, b"mDCV": 24, b"cLLI": 8, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}
_EXPONENTS = 0.01, 100.0
_SRGB_GAMMA, _SRGB_CHRM = 45455, (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


class NoProfile(ValueError):
    """Colours that no profile of curves and a matrix describes, such as those of HDR."""


def trimmed(profile: bytes) -> bytes | None:
    """A profile without what follows its declared end; None for what is no profile."""
    if len(profile) < _HEADER_LENGTH or profile[36:40] != b"acsp":
        return None
    declared = int.from_bytes(profile[:4], "big")
    return profile[:declared] if _HEADER_LENGTH <= declared <= len(profile) else None


def fits(profile: bytes, channels: int) -> bool:
    """Whether a profile is for pixels of 1 to 4 channels."""
    return channels in _SPACES.get(profile[_SPACE], ())


def is_for_gray(profile: bytes) -> bool:
    """Whether a profile is for gray."""
    return profile[_SPACE] == b"GRAY"


def is_for_cmyk(profile: bytes) -> bool:
    """Whether a profile is for CMYK."""
    return profile[_SPACE] == b"CMYK"


def cmyk_to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """A PIL image of mode CMYK as sRGB: by its profile, or by formula where it has none that works."""
    if profile is not None and is_for_cmyk(profile):
        try:
            return _to_srgb(image, profile)
        except (ImageCms.PyCMSError, OSError):
            pass  # a damaged profile
    return image.convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Raises PyCMSError or OSError for a profile that does not work."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None, "only None where it works in place"
    return converted


def _srgb_encode(linear: np.ndarray) -> np.ndarray:
    clipped = np.clip(linear, 0, 1)
    return np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)


def lab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """L*a*b* (..., 3) for D50, L* in 0..100, to sRGB in [0, 1], float64; colours outside are clipped."""
    f_y = (lab[..., 0] + 16) / 116
    f = np.stack([f_y + lab[..., 1] / 500, f_y, f_y - lab[..., 2] / 200], axis=-1)
    ratio = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    return _srgb_encode(ratio * D50 @ np.linalg.inv(_matrix(SRGB_PRIMARIES)).T)


def _matrix(primaries: Chromaticities) -> np.ndarray:
    """Linear R, G, B to XYZ for D50 (Bradford's adaptation)."""
    white, *colors = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in primaries)
    columns = np.stack(colors, axis=1)
    to_xyz = columns * np.linalg.solve(columns, white)
    gains = (_BRADFORD @ D50) / (_BRADFORD @ white)
    return np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD @ to_xyz


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(float(value) * 65536) for value in values))


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded


def as_rgb(profile: bytes) -> bytes | None:
    """A profile for R, G and B, of which equal ones are shown as grays by a gray profile; None for one without a curve.

    For file types that hold gray images as three equal channels.
    """
    count = int.from_bytes(profile[_HEADER_LENGTH : _HEADER_LENGTH + 4], "big")
    for place in range(_HEADER_LENGTH + 4, min(_HEADER_LENGTH + 4 + 12 * count, len(profile) - 12), 12):
        tag, start, length = struct.unpack_from(">4sII", profile, place)
        shape = profile[start : start + length]
        if tag == b"kTRC" and shape[:4] in (b"curv", b"para") and len(shape) == length:
            return make_profile(describe(profile), shape, SRGB_PRIMARIES)
    return None


def make_profile(name: str, curve: Sequence[float] | bytes, primaries: Chromaticities | None) -> bytes:
    """A version 4 profile.

    Args:
        name: its description.
        curve: g of y = x**g, or g, a, b, c, d of y = (a x + b)**g from d on, and c x below; or a curve's tag.
        primaries: None for a gray one.
    """
    if isinstance(curve, bytes):
        shape = curve
    else:
        shape = b"para\0\0\0\0" + struct.pack(">HH", 0 if len(curve) == 1 else 3, 0) + _fixed(*curve)
    tags = [(b"desc", _text(name)), (b"cprt", _text("No copyright")), (b"wtpt", b"XYZ \0\0\0\0" + _fixed(*D50))]
    if primaries is None:
        tags.append((b"kTRC", shape))
    else:
        matrix = _matrix(primaries)
        for index, letter in enumerate(b"rgb"):
            tags.append((bytes([letter]) + b"XYZ", b"XYZ \0\0\0\0" + _fixed(*matrix[:, index])))
            tags.append((bytes([letter]) + b"TRC", shape))
    start = _HEADER_LENGTH + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for number, content in tags:
        table += number + struct.pack(">II", start + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    space = b"GRAY" if primaries is None else b"RGB "
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"\0" * 4, 0x04200000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _fixed(*D50) + bytes(48)
    return head + table + body


def is_possible(chunk: Chunk) -> bool:
    """Whether a chunk on colours is as long as PNG has it, and holds values that colours can have."""
    kind, content = chunk
    if len(content) != _CHUNK_BYTES[kind]:
        return False
    if kind == b"gAMA":
        gamma = int.from_bytes(content, "big")
        return gamma > 0 and _EXPONENTS[0] <= 100_000 / gamma <= _EXPONENTS[1]
    if kind != b"cHRM":
        return True
    points = _points(struct.unpack(">8I", content))
    if min(y for _, y in points) <= 0:
        return False
    try:
        matrix = _matrix(points)
    except np.linalg.LinAlgError:
        return False
    return bool(np.isfinite(matrix).all() and np.abs(matrix).max() < 2**15)


def _points(numbers: Sequence[int]) -> list[tuple[float, float]]:
    return [(x / 100_000, y / 100_000) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]


def profile_of_png(chunks: Sequence[Chunk], gray: bool) -> bytes | None:
    """What possible chunks of a PNG without iCCP say of its colours, as a profile; None for sRGB, said or not.

    Raises NoProfile for colours that only PNG's own chunks describe.
    """
    found = dict(chunks)
    if b"cICP" in found:
        primaries, curve, matrix, full = found[b"cICP"]
        primaries, curve = (1 if primaries == _UNSPECIFIED else primaries), (13 if curve == _UNSPECIFIED else curve)
        if primaries not in _PRIMARIES or curve not in _CURVES or matrix or not full:
            raise NoProfile("its colours are those of HDR or of video (cICP), which only PNG can say")
        if (primaries, curve) == (1, 13):
            return None
        name = f"H.273 primaries {primaries}, transfer {curve}"
        return make_profile(name, _CURVES[curve], None if gray else _PRIMARIES[primaries])
    if b"sRGB" in found:
        return None
    gamma = int.from_bytes(found[b"gAMA"], "big") if b"gAMA" in found else _SRGB_GAMMA
    chrm = struct.unpack(">8I", found[b"cHRM"]) if b"cHRM" in found else _SRGB_CHRM
    like_srgb = abs(gamma - _SRGB_GAMMA) < 600
    if like_srgb and max(abs(a - b) for a, b in zip(chrm, _SRGB_CHRM, strict=True)) < 200:
        return None
    curve_numbers = _SRGB_CURVE if like_srgb else (100_000 / gamma,)
    return make_profile(f"PNG, gamma {100_000 / gamma:.2f}", curve_numbers, None if gray else _points(chrm))


def describe(profile: bytes | None) -> str:
    """What a profile calls itself; sRGB where there is none."""
    if profile is None:
        return "none, which means sRGB"
    try:
        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip() or "unnamed"
    except (ImageCms.PyCMSError, OSError):
        return "damaged"


@lru_cache(maxsize=64)
def color_difference(profile: bytes | None, other: bytes | None) -> int:
    """The largest difference, of 255, between what equal pixels are in the colours of two profiles; None is sRGB."""
    if profile == other:
        return 0
    neutral = any(each is not None and each[_SPACE] == b"GRAY" for each in (profile, other))
    shown = [_as_shown(each, neutral) for each in (profile, other)]
    return int(np.abs(shown[0].astype(int) - shown[1]).max())


def _as_shown(profile: bytes | None, neutral: bool) -> np.ndarray:
    """A grid of colours, or of grays, in sRGB, uint8 (N, 3); as they are for profiles that are damaged."""
    levels = np.array(_COMPARED_LEVELS, np.uint8)
    colors = np.stack([levels] * 3, axis=-1) if neutral else np.stack(np.meshgrid(levels, levels, levels), axis=-1)
    image = Image.fromarray(colors.reshape(1, -1, 3))
    if profile is not None:
        image = image.convert("L") if profile[_SPACE] == b"GRAY" else image
        try:
            image = _to_srgb(image, profile)
        except (ImageCms.PyCMSError, OSError):
            image = image.convert("RGB")
    return np.asarray(image)[0]
