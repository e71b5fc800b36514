"""SIDD for real denoising: training crops from the full-size pairs of SIDD-Medium."""

from functools import partial
from pathlib import Path

from mambair.commands.data.derive import crop_boxes, write_crops
from mambair.commands.data.jobs import Job
from mambair.errors import UserError
from mambair.imaging.headers import printable, read_image_size

GT_FOLDER, NOISY_FOLDER = "target_crops", "input_crops"


def sidd_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """(ground truth, noisy) files of SIDD-Medium's sRGB part: <scene>/<id>_GT_SRGB_<n>.PNG and <id>_NOISY_SRGB_<n>.PNG.

    `folder` is the unpacked archive or its folder Data. UserError if no pair is found or a partner is missing.
    """
    truths = sorted(path for path in folder.rglob("*_GT_SRGB_*") if path.suffix.lower() == ".png")
    if not truths:
        raise UserError(
            f"{printable(folder)}: no files named <id>_GT_SRGB_<n>.PNG below it; "
            "give the unpacked folder SIDD_Medium_Srgb or its folder Data"
        )
    pairs = [(truth, truth.with_name(truth.name.replace("_GT_SRGB_", "_NOISY_SRGB_"))) for truth in truths]
    missing = [noisy for _, noisy in pairs if not noisy.is_file()]
    if missing:
        raise UserError(f"{printable(missing[0])}: missing ({len(missing)} of {len(pairs)} noisy images are)")
    return pairs


def sidd_jobs(folder: Path, output: Path, crop: int, step: int) -> list[Job]:
    """Crops of both images of every pair: <output>/target_crops and <output>/input_crops, under the same names.

    A last crop along each axis ends at the border, so every pixel is used.
    """
    jobs = []
    for truth, noisy in sidd_pairs(folder):
        sizes = [read_image_size(path)[:2] for path in (truth, noisy)]
        if sizes[0] != sizes[1]:
            raise UserError(f"{printable(noisy)}: its size {sizes[1]} is not that of its ground truth, {sizes[0]}")
        boxes = crop_boxes(*sizes[0], crop, step, threshold=0)
        # 0001_GT_SRGB_010.PNG lies in the folder of scene 0001_001_S6_...: file names alone are unique.
        stem = truth.stem.replace("_GT_SRGB_", "_")
        for source, part in ((truth, GT_FOLDER), (noisy, NOISY_FOLDER)):
            targets = tuple(output / part / f"{stem}_s{number:03d}.png" for number in range(1, len(boxes) + 1))
            jobs.append(Job(source, targets, partial(write_crops, source, targets, boxes)))
    return jobs
