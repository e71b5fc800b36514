"""Make docs/gallery.md: before and after, for the photos of docs/gallery.yml and the networks that are in the package.

python scripts/gallery.py                 all tasks that a network of the package serves; the others are named
python scripts/gallery.py --tasks x2 x4   the pictures of these anew; the page has all
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from mambair.commands.exit_codes import OK, reports_user_errors
from mambair.data import builders  # noqa: F401 (registers the degradations)
from mambair.errors import UserError
from mambair.imaging.panels import labelled_panels
from mambair.imaging.pixels import to_uint8
from mambair.inference.restorer import Restorer, load_model
from mambair.registry import DEGRADATIONS
from mambair.runtime.files import atomic_write
from mambair.weights.sources import served_by, shipped_weights
from mambair.weights.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
LIST, PAGE, FOLDER = Path("docs/gallery.yml"), Path("docs/gallery.md"), Path("docs/figures/gallery")
STRIP = "strip.jpg"
SIDE = 240
"""Pixels of a shown crop, one to one: its side in the photo times the scale."""
QUALITY = 92

INTRODUCTION = f"""# Before and after

Three photos for each task, as they are or spoilt as the caption says; crops of {SIDE} pixels, one to one, the photo on
the left (enlarged by bicubic interpolation, where the network enlarges) and the network's on the right. They were
[chosen](gallery.yml) on 2026-11-29, before the networks were trained, for x2 before its results on them were looked at;
the third of each because the network probably fails on it. They are not exchanged for better ones. The pictures are
JPEG files of quality {QUALITY} with full chroma.

`python scripts/gallery.py` makes this page, for the networks that are in the package. The photos are scikit-image's
samples; the captions name authors and licences.
"""


@dataclass(frozen=True)
class Shown:
    """One entry of the list."""

    photo: str
    crop: tuple[int, int, int]
    """Top, left, side in pixels of the photo."""
    made: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    fails: str = ""
    strip: bool = False


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="make the pictures of these only")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--root", type=Path, default=ROOT, help="the project's folder (default: this one)")
    return parser


def read_list(path: Path) -> tuple[dict[str, dict[str, str]], dict[str, list[Shown]]]:
    """The photos, and what is shown of them for each task. Raises UserError for what does not fit together."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    tasks = {task: [Shown(**entry) for entry in entries] for task, entries in content["tasks"].items()}
    for task, entries in tasks.items():
        if task not in TASKS or TASKS[task].scale is None:
            raise UserError(f"{path}: tasks.{task}: is no task with a scale; there are {', '.join(TASKS)}")
        for entry in entries:
            if entry.photo not in content["photos"]:
                raise UserError(f"{path}: tasks.{task}: photo '{entry.photo}' does not stand under photos")
            if entry.crop[2] * (TASKS[task].scale or 1) != SIDE:
                raise UserError(f"{path}: tasks.{task}: crops of {entry.photo} must give {SIDE} pixels after enlarging")
    return content["photos"], tasks


def load_photo(name: str) -> np.ndarray:
    """A sample photo of scikit-image, uint8 (H, W, 3)."""
    if find_spec("skimage") is None:
        raise UserError("the photos are scikit-image's; install it with: pip install 'mambair[test]'")
    import skimage.data

    pixels = to_uint8(getattr(skimage.data, name)())
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)


def spoil(pixels: np.ndarray, made: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The photo after the degradations, uint8, the same each time."""
    rng = np.random.RandomState(0)
    for block in made:
        pixels = to_uint8(DEGRADATIONS.build(block, where="made")(pixels, rng))
    return pixels


def before_and_after(entry: Shown, model: Restorer) -> tuple[np.ndarray, np.ndarray]:
    """Both crops, uint8 (SIDE, SIDE, 3)."""
    photo = spoil(load_photo(entry.photo), entry.made)
    restored = np.asarray(model.restore(photo))
    size = (photo.shape[1] * model.scale, photo.shape[0] * model.scale)
    enlarged = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC))
    top, left, side = (length * model.scale for length in entry.crop)
    crops = [np.ascontiguousarray(image[top : top + side, left : left + side]) for image in (enlarged, restored)]
    if crops[0].shape[:2] != (SIDE, SIDE):
        raise UserError(f"{LIST}: crop {list(entry.crop)} of {entry.photo} goes beyond its {photo.shape[:2]} pixels")
    return crops[0], crops[1]


def save(path: Path, picture: Image.Image) -> None:
    """Write a JPEG file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        picture.save(temporary, "JPEG", quality=QUALITY, subsampling="4:4:4")


def picture_name(task: str, number: int) -> str:
    """Of the number-th photo of a task, from 0."""
    return f"{task}_{number + 1}.jpg"


def made_of(entry: Shown) -> str:
    """How the input was made, in words."""
    steps = [
        " ".join([block["type"], *(f"{key} {value}" for key, value in block.items() if key != "type")])
        for block in entry.made
    ]
    return "spoilt by " + ", ".join(steps) if steps else "as it is"


def page(
    photos: Mapping[str, Mapping[str, str]], tasks: Mapping[str, Sequence[Shown]], names: Mapping[str, str]
) -> str:
    """The page's text; `names` are the networks in the package by their tasks."""
    parts = [INTRODUCTION]
    for task, entries in tasks.items():
        here = f"By `{names[task]}`." if task in names else "There is no network for it in the package yet; chosen are:"
        parts.append(f"## {task}: {TASKS[task].hint}\n\n{here}\n")
        for number, entry in enumerate(entries):
            source = photos[entry.photo]
            caption = f"[{source['shows']}]({source['address']}), {source['licence']}; {made_of(entry)}"
            caption += f". Probably fails: {entry.fails}." if entry.fails else "."
            if task in names:
                parts.append(f"![{task}, {entry.photo}](figures/gallery/{picture_name(task, number)})\n\n{caption}\n")
            else:
                parts.append(f"- {caption}")
        if task not in names:
            parts.append("")
    return "\n".join(parts).rstrip("\n") + "\n"


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    root: Path = arguments.root
    photos, tasks = read_list(root / LIST)
    unknown = [task for task in arguments.tasks or () if task not in tasks]
    if unknown:
        raise UserError(f"--tasks {unknown[0]}: {LIST} has none of this name; there are {', '.join(tasks)}")
    shipped = set(shipped_weights().values())
    files = {task: path for task in tasks if (path := served_by(task)) in shipped and path is not None}
    strip: dict[str, np.ndarray] = {}
    for task in arguments.tasks or tasks:
        if task not in files:
            print(f"{task}: no network in the package serves it; its pictures are left out")
            continue
        model = load_model(files[task], device=arguments.device)
        for number, entry in enumerate(tasks[task]):
            before, after = before_and_after(entry, model)
            target = root / FOLDER / picture_name(task, number)
            save(target, Image.fromarray(np.hstack([before, np.full((SIDE, 4, 3), 255, np.uint8), after])))
            print(f"written: {target}")
            if entry.strip:
                half = SIDE // 2  # the left half is the photo's, the right half the network's
                strip[task] = np.hstack([before[:, :half], after[:, half:]])
    wanted = [task for task, entries in tasks.items() if any(entry.strip for entry in entries)]
    if len(strip) == len(wanted):
        save(root / FOLDER / STRIP, labelled_panels(strip))
        print(f"written: {root / FOLDER / STRIP}")
    else:
        missing = ", ".join(task for task in wanted if task not in strip)
        print(f"no strip of {', '.join(wanted)}: {missing} not made")
    with atomic_write(root / PAGE) as temporary:
        temporary.write_text(page(photos, tasks, {task: path.stem for task, path in files.items()}), encoding="utf-8")
    print(f"written: {root / PAGE}")
    return OK


if __name__ == "__main__":
    sys.exit(main())
