"""What a user waits for: the first image of the command `restore`, and a folder of photos."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import timing
from benchmarks.tables import Settings, Table
from benchmarks.timing import Budget, Row

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ("seconds", "at most seconds", "images/s", "at least images/s")
SIDE, PHOTOS = 500, 24
QUICK_SIDE, QUICK_PHOTOS = 32, 2


def time_starts(settings: Settings, budget: Budget) -> Iterator[Table]:
    """The table of the command's first image with caches empty and full, and of a folder."""
    side, count = (QUICK_SIDE, QUICK_PHOTOS) if settings.quick else (SIDE, PHOTOS)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        make_photos(photos, side, count)
        one = photos / "00.png"
        for label, source, limits in (
            ("first image, empty Triton cache", one, {"at most seconds": 15.0}),
            ("first image", one, {"at most seconds": 5.0}),
            (f"folder of {count} photos of {side}x{side}", photos, {"at least images/s": 10.0}),
        ):
            measure = partial(_restore, source, Path(folder), limits)
            rows.append(timing.measure_row({"work": label}, COLUMNS, measure, budget))
    note = (
        "The default command with the weights that come with the package, PNG in and out, Python's start and all "
        "imports included; images/s: photos over all of that time but what the first image took before."
    )
    first = rows[1]["seconds"]
    folder_row = rows[2]
    if isinstance(first, float) and isinstance(folder_row["seconds"], float):
        folder_row["images/s"] = (count - 1) / max(folder_row["seconds"] - first, 1e-9)
    yield Table("The command restore on the GPU", rows, note)


def make_photos(folder: Path, side: int, count: int) -> None:
    """PNG files 00.png, 01.png ... with slopes, edges and grain."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    for index in range(count):
        waves = 128 + 60 * np.sin(x / (20 + index)) + 40 * np.sign(np.cos(y / 31 + index))
        pixels = waves[:, :, None] + rng.normal(0, 8, (side, side, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{index:02d}.png")


def _restore(source: Path, folder: Path, limits: Row, figures: Row) -> None:
    """Time of the command on `source`; code compiled for the GPU is kept in `folder`."""
    figures.update(limits)
    target = Path(tempfile.mkdtemp(dir=folder)) / "restored"
    command = [sys.executable, str(ROOT / "mambair" / "restore.py"), str(source), "-o", str(target)]
    environment = os.environ | {"TRITON_CACHE_DIR": str(folder / "triton")}
    run = partial(subprocess.run, command, cwd=ROOT, env=environment, check=True, capture_output=True)
    figures["seconds"] = timing.seconds_of(run)
