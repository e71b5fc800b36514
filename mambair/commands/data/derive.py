"""Images made from images: bicubic low resolution, JPEG files, sub-images.

Every function here lists jobs; nothing is read or written before they run. All write PNG or JPEG files whose names
are those that the recipes in options/ expect.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from mambair.commands.data.jobs import Job
from mambair.errors import UserError
from mambair.imaging.files import list_images, read_colors, read_image, write_image
from mambair.imaging.headers import printable, read_image_size
from mambair.imaging.resize import crop_to_multiple, imresize

Channels = Literal["color", "gray", "y"]


def sibling_folder(folder: Path, name: str) -> Path:
    """The folder beside `folder` that holds what is made of it: .../HR -> .../<name>, .../BSD400 -> .../BSD400_<name>.

    DIV2K_train_HR gives DIV2K_train_LR_bicubic, as the data set's own folders are called.
    """
    # Links are not followed: what is made lies beside the link, where recipes expect it.
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 (pathlib's `absolute` keeps the dots of "." and "..")
    stem = folder.name
    return folder.parent / (stem.removesuffix("HR") + name if stem.endswith("HR") else f"{stem}_{name}")


def images_in(folder: Path) -> list[Path]:
    """The images of a folder; UserError if there are none."""
    images = list_images(folder)
    if not images:
        raise UserError(f"{printable(folder)}: has no images (sub-folders are not searched)")
    return images


def bicubic_jobs(
    folder: Path, output: Path, scale: int, template: str = "{}x{scale}", cropped_hr: Path | None = None
) -> list[Job]:
    """Low resolution by MATLAB's bicubic: <output>/X<scale>/<name>x<scale>.png, or what `template` makes of the name.

    Images whose sides are no multiple of `scale` lose their last rows and columns first, as in the benchmarks'
    protocol; `cropped_hr` gets the images of that size, to pair with, as <name>.png.
    """
    jobs = []
    for image in images_in(folder):
        target = output / f"X{scale}" / f"{fill_template(template, image.stem, scale)}.png"
        hr_target = None if cropped_hr is None else cropped_hr / f"{image.stem}.png"
        targets = (target,) if hr_target is None else (target, hr_target)
        jobs.append(Job(image, targets, partial(_write_bicubic, image, target, scale, hr_target)))
    return jobs


def fill_template(template: str, stem: str, scale: int) -> str:
    """The name that a template such as {}x{scale} or {}_LRBI_x2 gives to the low-quality partner of `stem`."""
    try:
        name = template.format(stem, scale=scale)
    except (IndexError, KeyError, ValueError) as error:
        raise UserError(f"--filename-tmpl '{template}': use {{}} for the name and {{scale}} for the factor") from error
    if stem not in name or "/" in name:
        raise UserError(f"--filename-tmpl '{template}': must hold {{}}, the image's name, and no folder")
    return name


def _write_bicubic(source: Path, target: Path, scale: int, hr_target: Path | None) -> None:
    image = _opaque(read_image(source, mode="unchanged"), source)
    cropped = crop_to_multiple(image, scale)
    if 0 in cropped.shape:
        raise UserError(f"{printable(source)}: is smaller than {scale} pixels")
    colors = read_colors(source)
    if hr_target is not None:
        write_image(hr_target, cropped, colors=colors)
    write_image(target, imresize(cropped, 1 / scale), colors=colors)


def _opaque(image: np.ndarray, source: Path) -> np.ndarray:
    if image.shape[2] in (1, 3):
        return image
    raise UserError(f"{printable(source)}: has an alpha channel, which pairs for training cannot have; remove it")


def jpeg_jobs(folder: Path, output: Path, quality: int, channels: Channels) -> list[Job]:
    """JPEG files <output>/q<quality>/<name>.jpg, encoded by OpenCV (4:2:0 chroma) at `quality`.

    `channels` color keeps what an image has (gray stays gray), gray converts to gray as OpenCV does, y takes MATLAB's
    rgb2ycbcr's rounded Y.
    """
    jobs = []
    for image in images_in(folder):
        target = output / f"q{quality}" / f"{image.stem}.jpg"
        jobs.append(Job(image, (target,), partial(_write_jpeg, image, target, quality, channels)))
    return jobs


def _write_jpeg(source: Path, target: Path, quality: int, channels: Channels) -> None:
    image = _opaque(read_image(source, mode="unchanged" if channels == "color" else channels), source)
    if image.dtype != np.uint8:
        raise UserError(f"{printable(source)}: has {image.dtype} pixels, and JPEG has 8 bits; convert it")
    write_image(target, image, jpeg_quality=quality, colors=read_colors(source))


def positions(length: int, crop: int, step: int, threshold: int) -> list[int]:
    """Starts of crops along an axis; one more ends at the border if more than `threshold` pixels would be left over.

    An axis shorter than `crop` has the start 0 alone, and gives a shorter crop.
    """
    starts = list(range(0, max(length - crop, 0) + 1, step))
    if length - (starts[-1] + crop) > threshold:
        starts.append(length - crop)
    return starts


def crop_name(stem: str, number: int, scale: int) -> str:
    """Name of a crop: 0001 -> 0001_s001; of a partner x2 -> 0001_s001x2, so that the template {}x2 still pairs them."""
    suffix = f"x{scale}"
    if scale > 1 and stem.endswith(suffix):
        return f"{stem.removesuffix(suffix)}_s{number:03d}{suffix}"
    return f"{stem}_s{number:03d}"


def subimage_jobs(folder: Path, output: Path, crop: int, step: int, threshold: int, scale: int = 1) -> list[Job]:
    """Overlapping square crops <output>/<name>_s<number>.png, for fast reading of random patches.

    `crop`, `step` and `threshold` are in pixels of the ground truth; `scale` divides them for the folder of its
    low-quality partners. Sizes come from the files' headers, so only unreadable headers fail early.
    """
    for key, value in (("crop-size", crop), ("step", step), ("threshold", threshold)):
        if value % scale:
            raise UserError(f"--{key} {value} is no multiple of --scale {scale}; the crops would not match")
    crop, step, threshold = crop // scale, step // scale, threshold // scale
    jobs = []
    for image in images_in(folder):
        height, width, _ = read_image_size(image)
        boxes = crop_boxes(height, width, crop, step, threshold)
        targets = tuple(output / f"{crop_name(image.stem, number, scale)}.png" for number in range(1, len(boxes) + 1))
        jobs.append(Job(image, targets, partial(write_crops, image, targets, boxes)))
    return jobs


Box = tuple[int, int, int, int]


def crop_boxes(height: int, width: int, crop: int, step: int, threshold: int) -> list[Box]:
    """(top, left, bottom, right) of the crops, row by row."""
    tops, lefts = (positions(length, crop, step, threshold) for length in (height, width))
    return [(top, left, min(top + crop, height), min(left + crop, width)) for top in tops for left in lefts]


def write_crops(source: Path, targets: Sequence[Path], boxes: Sequence[Box]) -> None:
    """Cut the boxes out of an image and write them."""
    image = _opaque(read_image(source, mode="unchanged"), source)
    colors = read_colors(source)
    for target, (top, left, bottom, right) in zip(targets, boxes, strict=True):
        write_image(target, image[top:bottom, left:right], colors=colors)
