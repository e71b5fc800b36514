"""What `mambair restore` says of a photo that a network for clean ones is to enlarge: which task would suit it better.

It only says so; what is done is not changed. OpenCV and Pillow's JPEG tables are imported when the first photo is
looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from mambair.imaging.pixels import to_uint8
from mambair.weights.published import PUBLISHED
from mambair.weights.sources import published_name, served_by
from mambair.weights.tasks import TASKS

NOISY = 8.0
"""Sigma from which noise shows. Of 200 photos of BSD400, 18 of McMaster and 330 of ImageNet, as they are, ten of the
last come to it; with noise of sigma 10 added all of them do."""
COMPRESSED = 75
"""JPEG quality up to which blocks and rings show when a photo is enlarged; cameras write 90 and more."""
JPEG_START = b"\xff\xd8"


@dataclass(frozen=True)
class Advice:
    """What was seen of a photo, and what follows."""

    seen: str
    """'JPEG of quality 42, noise of about sigma 12'."""
    text: str
    """Which task would suit it, and how to get weights for it if there are none here."""


Adviser: TypeAlias = Callable[[Path, np.ndarray], Advice | None]


def advise(path: Path, pixels: np.ndarray) -> Advice | None:
    """Look at a photo, its file and its pixels (H, W, C), integers; None if a network for clean photos suits it."""
    quality, sigma = jpeg_quality(path), estimated_noise(pixels)
    is_noisy = sigma is not None and sigma >= NOISY
    is_compressed = quality is not None and quality <= COMPRESSED
    if not is_noisy and not is_compressed:
        return None
    seen = []
    if is_compressed:
        seen.append(f"JPEG of quality {quality}")
    if is_noisy:
        seen.append(f"noise of about sigma {sigma:.0f}")
    photo = ["photo_x1", "photo_x4"]
    if is_noisy and is_compressed:
        text = suggestion([*photo, "jpeg", "denoise"], None)
    elif is_noisy:
        text = suggestion(["denoise", *photo], sigma)
    else:
        text = suggestion(["jpeg", *photo], quality)
    return None if text is None else Advice(", ".join(seen), text)


def suggestion(tasks: Sequence[str], level: float | None) -> str | None:
    """The first of the tasks that is served here, or else the first that published weights serve, in words."""
    for name in tasks:
        if served_by(name) is not None:
            return f"--task {name} would suit it better ({TASKS[name].hint})"
    for name in tasks:
        weights = nearest_published(name, level)
        if weights is not None:
            better = f"--task {name} would suit it better ({TASKS[name].hint})"
            return f"{better}, once `mambair weights get {weights}` has fetched a network for it"
    return None


def nearest_published(task: str, level: float | None) -> str | None:
    """The published weights for a task whose noise level or quality is nearest; None if there are none."""
    levels = [each.purpose[1] for each in PUBLISHED.values() if each.purpose[0] == TASKS[task].kind and each.purpose[1]]
    if not TASKS[task].has_level or level is None or not levels:
        return published_name(task, None)
    return published_name(task, min(levels, key=lambda each: abs(each - level)))


def jpeg_quality(path: Path) -> int | None:
    """The quality of a JPEG file by its tables; None for other files."""
    from mambair.data.origins import jpeg_source
    from mambair.imaging.headers import DAMAGE

    with path.open("rb") as file:
        if file.read(2) != JPEG_START:
            return None
    try:
        jpeg = jpeg_source(path.read_bytes())
    except DAMAGE:  # decoded all the same, by a library that forgives more
        return None
    return None if jpeg is None else jpeg.quality


def estimated_noise(pixels: np.ndarray) -> float | None:
    """The sigma of a photo's noise; transparency is not looked at."""
    from mambair.data.noise_level import noise_level

    channels = pixels.shape[2] - (pixels.shape[2] in (2, 4))
    return noise_level(to_uint8(pixels[:, :, :channels]))
