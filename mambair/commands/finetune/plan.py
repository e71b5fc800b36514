"""How long, how fast and on what a network is fine-tuned, and the files that say so."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from mambair.archs.network import traits_of
from mambair.commands.finetune.photos import Photo, Split
from mambair.commands.options.new import CHARBONNIER, pairs_of
from mambair.commands.options.recipe import Images, Recipe, recipe_text, test_text
from mambair.commands.options.schema_files import schema_line
from mambair.errors import UserError
from mambair.runtime.files import atomic_write
from mambair.weights.loading import checked_plugin, network_options, save_weights
from mambair.weights.sources import read_purpose
from mambair.weights.tasks import Level

NAME = "finetuned"
RECIPE, TEST, START = "recipe.yml", "test.yml", "start.safetensors"
LISTS = {"trained": "train.txt", "watched": "watched.txt", "judged": "judged.txt"}

PASSES = {True: 20, False: 5}
"""Times that every part of the photos is seen, on a GPU and on the CPU, where 20 photos would take hours otherwise."""
FEWEST_ITERATIONS, MOST_ITERATIONS = 200, 20_000
VALIDATIONS = 10
PATIENCE = 3
SLOWEST, FASTEST = 5e-5, 1e-4
"""Learning rates for few photos and for many; training from scratch has 2e-4."""
MANY_PATCHES = 5000


@dataclass(frozen=True)
class Purpose:
    """What a network is for."""

    task: str
    """x2 and the like, denoise or jpeg: a task of `mambair options new`."""
    scale: int
    noise: Level | None
    """Sigma or JPEG quality; a range for a blind network."""
    is_gray: bool


@dataclass(frozen=True)
class Sizes:
    """The numbers that follow from the photos and the device."""

    gt_size: int
    batch: int
    total_iter: int
    val_freq: int
    learning_rate: float
    ema_decay: float


def purpose_of(network: nn.Module, weights: Path, task: str | None, noise: Level | None) -> Purpose:
    """What the network is for, by its scale, by what its file states, and by what the command line says.

    Raises UserError where that is not known, and for networks whose pairs cannot be made from clean photos alone.
    """
    traits = traits_of(network)
    is_gray = traits.in_channels == 1
    stated_task, stated_noise = read_purpose(weights)
    if stated_task == "photo" or weights.stem.startswith("RealSR"):
        raise UserError(
            f"{weights}: was trained on photos degraded at random; write a recipe for it: mambair options new photo"
        )
    if traits.scale > 1:
        if task not in (None, "sr"):
            raise UserError(f"--task {task}: {weights} enlarges images x{traits.scale}; leave --task out")
        return Purpose(f"x{traits.scale}", traits.scale, None, is_gray)
    task, noise = task or stated_task, noise or stated_noise
    if task not in ("denoise", "jpeg") or noise is None:
        raise UserError(
            f"{weights}: does not say what it is for; add --task denoise --noise SIGMA, or --task jpeg --noise QUALITY"
        )
    return Purpose(task, 1, noise, is_gray)


def sizes_for(photos: Sequence[Photo], scale: int, is_gpu: bool, iterations: int | None) -> Sizes:
    """Patch, batch, length and learning rate for the photos that are trained on.

    The more photos, the longer and the faster: a few hundred patches are learnt by heart if the steps are large.
    """
    low, batch = (64, 16) if is_gpu else (32, 4)
    side = low * scale if scale > 1 else 2 * low
    shortest = min(min(photo.width, photo.height) for photo in photos)
    gt_size = min(side, shortest // scale * scale)
    patches = sum(photo.width * photo.height for photo in photos) / gt_size**2
    total = iterations or min(MOST_ITERATIONS, max(FEWEST_ITERATIONS, round(PASSES[is_gpu] * patches / batch)))
    rate = SLOWEST + (FASTEST - SLOWEST) * min(1.0, patches / MANY_PATCHES)
    return Sizes(
        gt_size=gt_size,
        batch=batch,
        total_iter=total,
        val_freq=max(1, -(-total // VALIDATIONS)),
        learning_rate=float(f"{rate:.1e}"),
        ema_decay=round(min(0.999, max(0.9, 1 - 10 / total)), 4),
    )


def write_plan(folder: Path, photos: Path, split: Split, recipe: Recipe, network: nn.Module) -> None:
    """Write lists, weights to start from and option files, or check that they are those of an earlier start.

    Raises UserError where the folder holds a run with other settings.
    """
    texts = {LISTS[part]: "".join(f"{photo.name}\n" for photo in getattr(split, part)) for part in LISTS}
    texts[RECIPE] = recipe_text(recipe, schema_line(folder / RECIPE, is_training=True), folder / RECIPE)
    texts[TEST] = test_text(
        replace(recipe, validation=Images((photos,), lists=(folder / LISTS["judged"],))),
        schema_line(folder / TEST, is_training=False),
        folder / TEST,
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        path = folder / name
        if path.is_file() and path.read_text(encoding="utf-8") != text:
            raise UserError(
                f"{path}: is of an earlier run with other photos, weights or settings; pass another folder with -o, "
                "or move this one away"
            )
    if not (folder / RECIPE).is_file():  # written last: what is there with it is whole
        save_weights(network, folder / START)
    for name in sorted(texts, key=lambda each: each == RECIPE):
        with atomic_write(folder / name) as temporary:
            temporary.write_text(texts[name], encoding="utf-8")


def make_recipe(
    folder: Path, photos: Path, network: nn.Module, source: str, purpose: Purpose, sizes: Sizes, num_gpu: int | str,
    seed: int, plugins: Sequence[str],
) -> Recipe:  # fmt: skip
    """What `mambair train` does with these photos."""
    options = network_options(network)
    if options is None:
        raise UserError(f"{source}: is another project's network; fine-tune it by an option file of type spandrel")
    options = checked_plugin(options, source)  # the file names the plug-in itself
    kind = "noise" if purpose.task == "denoise" else "quality"
    degradation: dict[str, Any] = {"noise": None, "quality": None} | {kind: purpose.noise}
    return Recipe(
        title=f"{source}, fine-tuned on the photos of {photos.as_posix()}.",
        name=NAME,
        scale=purpose.scale,
        pairs=pairs_of(purpose.task, purpose.scale, gray=purpose.is_gray, **degradation),
        training=Images((photos,), lists=(folder / LISTS["trained"],)),
        validation=Images((photos,), lists=(folder / LISTS["watched"],)),
        network={**options, "drop_path_rate": 0.0} if "drop_path_rate" in options else options,
        gt_size=sizes.gt_size,
        batch=sizes.batch,
        total_iter=sizes.total_iter,
        learning_rate=sizes.learning_rate,
        val_freq=sizes.val_freq,
        loss={"type": "L1Loss", "loss_weight": 1.0} if purpose.scale > 1 else CHARBONNIER,
        weights=folder / START,
        ema_decay=sizes.ema_decay,
        patience=PATIENCE,
        workers=2,
        root=folder,
        num_gpu=num_gpu,
        seed=seed,
        plugins=tuple(plugins),
    )
