"""What is kept of an image to recognise it: a hash of its pixels, a small version, and features of that.

Features are SIFT's (Lowe, 2004), found by OpenCV at the same size for all images, so that a photo and its enlarged copy
give the same ones; their 128 numbers are reduced to 256 bits, two per number: above the median of its descriptor, and
above the third quartile. Bits compare by one XOR, and are found again by parts of them.
"""

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np

SIDE = 320
"""Longest side of small versions in pixels."""
FEATURES = 300
SMALL_QUALITY = 90


@dataclass(frozen=True)
class Fingerprint:
    """An image as it is compared with others. K: number of features."""

    pixels: str
    """SHA-256 of the decoded gray pixels: equal for equal images, whatever their files' formats."""
    width: int
    """Of the whole image, in pixels."""
    height: int
    small: bytes
    """The small version, as a JPEG file: thousands of them stay in memory."""
    positions: np.ndarray
    """Where the features are in the small version: float32 (K, 2), x and y."""
    angles: np.ndarray
    """Their orientation in degrees, float32 (K,)."""
    log_sizes: np.ndarray
    """Base-2 logarithm of their size in pixels, float32 (K,)."""
    bits: np.ndarray
    """Their descriptors: uint8 (K, 32)."""

    @property
    def reduction(self) -> float:
        """Sides of the small version in parts of the whole image's."""
        return min(1.0, SIDE / max(self.width, self.height))

    def small_image(self) -> np.ndarray:
        """The small version: uint8 (h, w)."""
        image = cv2.imdecode(np.frombuffer(self.small, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert image is not None, "it was written by `fingerprint`"
        return image


def fingerprint(gray: np.ndarray) -> Fingerprint:
    """The fingerprint of a uint8 image (H, W), gray."""
    height, width = gray.shape
    reduction = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * reduction)), max(1, round(height * reduction))
    small = gray if reduction == 1 else cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    found, descriptors = cv2.SIFT.create(nfeatures=FEATURES).detectAndCompute(small, None)
    found, descriptors = found[:FEATURES], None if descriptors is None else descriptors[:FEATURES]
    _, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, SMALL_QUALITY])
    return Fingerprint(
        pixels=hashlib.sha256(f"{width}x{height}".encode() + np.ascontiguousarray(gray).tobytes()).hexdigest(),
        width=width,
        height=height,
        small=encoded.tobytes(),
        positions=np.array([point.pt for point in found], np.float32).reshape(-1, 2),
        angles=np.array([point.angle for point in found], np.float32),
        log_sizes=np.log2(np.array([point.size for point in found], np.float32)),
        bits=_bits(descriptors),
    )


def _bits(descriptors: np.ndarray | None) -> np.ndarray:
    """(K, 128) numbers to (K, 32) bytes."""
    if descriptors is None:
        return np.zeros((0, 32), np.uint8)
    middle, high = np.percentile(descriptors, (50, 75), axis=1)[:, :, None]
    return np.packbits(np.concatenate([descriptors > middle, descriptors > high], axis=1), axis=1)
