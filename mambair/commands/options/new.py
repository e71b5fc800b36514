"""`mambair options new`: a training file for one's own folders."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from mambair.commands.options.recipe import Images, Pairs, Recipe, recipe_text
from mambair.commands.options.schema_files import schema_line
from mambair.errors import UserError
from mambair.runtime.files import atomic_write
from mambair.weights.tasks import Level

TASKS = {
    "x2": "super-resolution, twice as large",
    "x3": "super-resolution, three times as large",
    "x4": "super-resolution, four times as large",
    "denoise": "removal of Gaussian noise",
    "jpeg": "removal of JPEG artifacts",
    "photo": "real-world super-resolution x4: blur, noise and JPEG of unknown kinds",
    "pairs": "any task whose low-quality images are on disk",
}
NETWORKS = {
    "MambaIR": {
        "light": {"embed_dim": 60, "depths": [6] * 4, "d_state": 10, "mlp_ratio": 1.2},
        "classic": {"embed_dim": 180, "depths": [6] * 6, "d_state": 16, "mlp_ratio": 2.0},
    },
    "MambaIRv2": {
        "light": {
            "embed_dim": 48, "depths": [5] * 4, "num_heads": [4] * 4, "d_state": 8, "window_size": 16, "inner_rank": 32,
            "num_tokens": 64, "convffn_kernel_size": 5, "mlp_ratio": 1.0,
        },
        "classic": {
            "embed_dim": 174, "depths": [6] * 6, "num_heads": [6] * 6, "d_state": 16, "window_size": 16,
            "inner_rank": 64, "num_tokens": 128, "convffn_kernel_size": 5, "mlp_ratio": 2.0,
        },
    },
}  # fmt: skip
"""The papers' networks, by version and size; classic is what MambaIRv2's paper calls base."""
LIGHT_ITERATIONS, CLASSIC_ITERATIONS = 20_000, 500_000
CHARBONNIER = {"type": "CharbonnierLoss", "loss_weight": 1.0, "eps": 1e-6}


def write_new(arguments: argparse.Namespace) -> Path:
    """Write the file that the command line describes; returns its path. Raises UserError for what does not fit."""
    path: Path = arguments.output
    if path.exists() and not arguments.overwrite:
        raise UserError(f"{path}: is there already; choose another name, or pass --overwrite")
    recipe = build_recipe(arguments)
    with atomic_write(path) as temporary:
        temporary.write_text(recipe_text(recipe, schema_line(path, is_training=True), path), encoding="utf-8")
    return path


def build_recipe(arguments: argparse.Namespace) -> Recipe:
    """What the arguments of `mambair options new` ask for."""
    check_folders(arguments)
    task, scale = arguments.task, scale_of(arguments)
    pairs = pairs_of(task, scale, noise=arguments.noise, quality=arguments.quality, gray=arguments.gray)
    if arguments.filename_tmpl is not None:
        pairs = replace(pairs, keys={**pairs.keys, "filename_tmpl": arguments.filename_tmpl})
    is_light = arguments.size == "light"
    validation = None
    if arguments.val is not None:
        validation = Images((arguments.val,), () if arguments.val_degraded is None else (arguments.val_degraded,))
    network = network_of(arguments.network, task, scale, is_light=is_light, gray=arguments.gray)
    return Recipe(
        title=f"{TASKS[task][0].upper()}{TASKS[task][1:]}, on the images of {arguments.images.as_posix()}.",
        name=arguments.output.stem,
        scale=scale,
        pairs=pairs,
        training=Images((arguments.images,), () if arguments.degraded is None else (arguments.degraded,)),
        validation=validation,
        network=network,
        gt_size=64 * scale if scale > 1 else 128,
        batch=16,
        total_iter=LIGHT_ITERATIONS if is_light else CLASSIC_ITERATIONS,
        learning_rate=2e-4,
        val_freq=1000 if is_light else 5000,
        model_type="RealESRNetModel" if task == "photo" else f"{network['type']}Model",
        loss=CHARBONNIER if scale == 1 else {"type": "L1Loss", "loss_weight": 1.0},
        head={"gt_size": 64 * scale} if task == "photo" else {},
    )


def check_folders(arguments: argparse.Namespace) -> None:
    """Raise UserError for folders that are missing or do not go with the task."""
    for folder in filter(None, (arguments.images, arguments.degraded, arguments.val, arguments.val_degraded)):
        if not folder.is_dir():
            raise UserError(f"{folder}: is no folder; name folders of images")
    is_paired = arguments.task == "pairs"
    if is_paired and arguments.degraded is None:
        raise UserError("task pairs: name the folder of low-quality images too: --degraded FOLDER")
    if not is_paired and arguments.degraded is not None:
        raise UserError(f"task {arguments.task} makes its low-quality images; for those on disk choose the task pairs")
    if is_paired and (arguments.val is None) != (arguments.val_degraded is None):
        raise UserError("--val and --val-degraded: pass both, or neither")
    if arguments.filename_tmpl is not None and not is_paired:
        raise UserError("--filename-tmpl: belongs to the task pairs, whose low-quality images have names")
    for option, task in (("noise", "denoise"), ("quality", "jpeg")):
        if getattr(arguments, option) is not None and arguments.task != task:
            raise UserError(f"--{option}: belongs to the task {task}, not to {arguments.task}")
    if arguments.scale is not None and not is_paired:
        raise UserError(f"--scale: belongs to the task pairs; {arguments.task} has its own")


def scale_of(arguments: argparse.Namespace) -> int:
    """How many times larger the clean images are."""
    task: str = arguments.task
    if task == "pairs":
        return arguments.scale or 1
    return {"x2": 2, "x3": 3, "x4": 4, "photo": 4}.get(task, 1)


def pairs_of(task: str, scale: int, *, noise: Level | None, quality: Level | None, gray: bool) -> Pairs:
    """The keys of a data set whose pairs are for a task; noise is 25 and quality 40 where they are not given.

    Of a range each image draws its own, for a blind network, which is validated in the middle.
    """
    color: dict[str, Any] = {"color": "gray"} if gray else {}
    if task == "pairs":
        return Pairs({"type": "PairedImageDataset", **color}, "Clean and low-quality images are paired by their names.")
    if task == "photo":
        return Pairs(
            {"type": "RealESRGANDataset"},
            "Clean images only; they are degraded at random, in two rounds, on the device.",
            validation={"type": "SyntheticDataset", "task": "SR"},
        )
    if task in ("denoise", "jpeg"):
        return _pairs_of_level(task, noise or Level(25, 25) if task == "denoise" else quality or Level(40, 40), gray)
    keys = {"type": "SyntheticDataset", "task": "SR", **color}
    return Pairs(keys, f"Clean images only; MATLAB's bicubic makes them {scale} times smaller on the fly.")


def _pairs_of_level(task: str, level: Level, gray: bool) -> Pairs:
    """Pairs for denoising or JPEG artifacts, of one level or of a range."""
    middle = (level.low + level.high) // 2
    if task == "denoise":
        fixed = {"task": "denoising_gray" if gray else "denoising_color", "noise": middle}
        drawn = {"type": "RandomGaussianNoise", "sigma": [level.low, level.high], "clip_odds": 0.5}
        explanation = "Clean images only; the noise is drawn anew for every patch."
    else:
        fixed = {"task": "CAR", "quality": middle, "color": "gray" if gray else "rgb"}
        drawn = {"type": "RandomJpeg", "quality": [level.low, level.high]}
        explanation = "Clean images only; they are compressed on the fly."
    fixed = {"type": "SyntheticDataset", **fixed}
    if level.is_single:
        return Pairs(fixed, explanation)
    keys = {"type": "SyntheticDataset", "degradation": drawn, **({"color": "gray"} if gray else {})}
    return Pairs(keys, f"{explanation[:-1]}, each patch with a strength of its own.", validation=fixed)


def network_of(version: str, task: str, scale: int, *, is_light: bool, gray: bool) -> dict[str, Any]:
    """The light or classic network of a version's paper for a task and its scale."""
    is_second = version == "MambaIRv2"
    sizes = dict(NETWORKS[version]["light" if is_light else "classic"])
    if scale == 1 and not is_light and not is_second:
        sizes["mlp_ratio"] = 1.2
    head = "" if scale == 1 else "pixelshuffledirect" if is_light else "pixelshuffle"
    if is_second and task == "photo" and not is_light:
        head = "nearest+conv"
    return {
        "type": "MambaIRv2Light" if is_second and is_light else version,
        "upscale": scale,
        "in_chans": 1 if gray else 3,
        "img_range": 1.0,
        **sizes,
        "upsampler": head,
        "resi_connection": "1conv",
    }
