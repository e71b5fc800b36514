"""From a data set's section of an option file to the data set. DATASETS maps the `type` names to builders."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mambair.data import blind  # noqa: F401 (registers its degradations)
from mambair.data.image_sources import ImageEntry
from mambair.data.paired_dataset import PairedImageDataset
from mambair.data.pairing import Pair, Problem, Requirements, check_pairs, list_entries, pair_images
from mambair.data.plugin_datasets import build_plugin_dataset
from mambair.data.single_dataset import SingleImageDataset
from mambair.data.synthesis import BicubicReduction, Degradation, Degradations, GaussianNoise, JpegArtifacts
from mambair.data.synthetic_dataset import SyntheticDataset
from mambair.data.transforms import Symmetries, ToTensor
from mambair.errors import UserError
from mambair.options.dataset_schema import DatasetOptions, has_own_keys
from mambair.registry import DATASETS, DEGRADATIONS

_PAIRED_TYPES = ("PairedImageDataset", "Dataset_PairedImage")


@dataclass(frozen=True)
class BuildContext:
    """What a builder must know besides the section itself."""

    locate: Callable[[str], str]
    """File, line and path of a key path, for errors: the option file's `where`."""
    section: str
    """The section's key path, such as 'datasets.train'."""
    scale: int
    """The option file's upscaling factor."""
    training: bool
    """Whether the data set is drawn from, or evaluated as it is."""
    check: bool = True
    """Inspect all files first, and report everything that is wrong with them at once."""

    def where(self, key: str | None = None) -> str:
        """The section, or one of its keys, as errors name it."""
        return self.locate(self.section if key is None else f"{self.section}.{key}")


def build_dataset(section: DatasetOptions, context: BuildContext) -> Any:
    """The data set that a section describes.

    Raises UserError that names the section: unknown type, keys that are missing, roots that are missing or empty, and,
    if the context says so, every image that has no partner or cannot be used.
    """
    entry = DATASETS.get(section.type, context.where("type"))
    if not has_own_keys(section.type):
        return entry(section, context)
    phase = context.section.rpartition(".")[2]
    program = {"scale": context.scale, "training": context.training, "phase": "train" if context.training else phase}
    return build_plugin_dataset(entry, section, program, context.where)


@DATASETS.register("PairedImageDataset")
@DATASETS.register("Dataset_PairedImage")
def build_paired(section: DatasetOptions, context: BuildContext) -> PairedImageDataset | SyntheticDataset:
    """Pairs on disk; with `noise`, or without dataroot_lq where `quality` is given, the partners are made on the fly.

    Published files of denoising name the ground truth's folder as dataroot_lq too: it is not read then.
    """
    if _is_synthetic(section):
        return build_synthetic(section, context)
    found = find_images(section, context)
    _check(found, context)
    return PairedImageDataset(
        found.pairs,
        scale=context.scale,
        mode=_mode(section),
        gt_size=_gt_size(section, context),
        symmetries=_symmetries(section),
        to_tensor=_to_tensor(section),
    )


@DATASETS.register("SyntheticDataset")
def build_synthetic(section: DatasetOptions, context: BuildContext) -> SyntheticDataset:
    """Ground truth only; the task says how its partners are made."""
    degradation = _degradation(section, context)
    found = find_images(section, context)
    _check(found, context)
    return SyntheticDataset(
        [pair.gt for pair in found.pairs],
        degradation,
        mode=_mode(section),
        gt_size=_gt_size(section, context),
        symmetries=_symmetries(section),
        to_tensor=_to_tensor(section),
    )


@DATASETS.register("SingleImageDataset")
def build_single(section: DatasetOptions, context: BuildContext) -> SingleImageDataset:
    """Images without ground truth, from dataroot_lq."""
    if context.training:
        raise UserError(f"{context.where()}: SingleImageDataset has no ground truth to train on; use another type")
    found = find_images(section, context)
    _check(found, context)
    mode: Literal["color", "gray"] = "color" if _mode(section) == "color" else "gray"
    return SingleImageDataset([pair.gt for pair in found.pairs], mode=mode, to_tensor=_to_tensor(section))


@dataclass(frozen=True)
class FoundImages:
    """The images of a section, before their headers are looked at."""

    pairs: list[Pair]
    """For a SingleImageDataset, its images stand in the place of the ground truth."""
    problems: list[Problem]
    """Ground truth without partner."""
    requirements: Requirements
    """What the pairs must fulfil."""


def find_images(section: DatasetOptions, context: BuildContext) -> FoundImages:
    """List and pair the images of a section of any type.

    Raises UserError for missing keys and for roots that are missing or empty.
    """
    if section.type == "SingleImageDataset":
        entries = _entries(section, context, "dataroot_lq", section.dataroot_lq)
        return FoundImages([Pair(entry) for entry in entries], [], Requirements(color=False))
    if section.type not in (*_PAIRED_TYPES, "SyntheticDataset"):
        return FoundImages([Pair(entry) for entry in list_ground_truth(section, context)], [], Requirements())
    largest = max([*section.gt_sizes, section.gt_size or 0]) if context.training else 0
    requirements = Requirements(context.scale, color=_mode(section) == "color", gt_size=largest or None)
    if section.type not in _PAIRED_TYPES or _is_synthetic(section):
        return FoundImages([Pair(entry) for entry in list_ground_truth(section, context)], [], requirements)
    for key in ("dataroot_gt", "dataroot_lq"):
        if not getattr(section, key):
            raise UserError(
                f"{context.where()}: key '{key}' is missing; give the folder, "
                "or write type: SyntheticDataset to make low-quality images from dataroot_gt on the fly"
            )
    pairs, problems = pair_images(
        section.dataroot_gt,
        section.dataroot_lq,
        backend=section.io_backend.type,
        meta_info_files=section.meta_info_file,
        filename_template=section.filename_tmpl,
        gt_template=section.filename_tmpl_gt,
        where_gt=context.where("dataroot_gt"),
        where_lq=context.where("dataroot_lq"),
    )
    return FoundImages(pairs, problems, requirements)


def list_ground_truth(section: DatasetOptions, context: BuildContext) -> list[ImageEntry]:
    """The images of dataroot_gt that a section chooses."""
    return _entries(section, context, "dataroot_gt", section.dataroot_gt)


def _entries(section: DatasetOptions, context: BuildContext, key: str, roots: Sequence[Path]) -> list[ImageEntry]:
    """The images of the roots that stand under `key`."""
    if not roots:
        raise UserError(f"{context.where()}: key '{key}' is missing; give the folder of images")
    return list_entries(
        roots,
        context.where(key),
        backend=section.io_backend.type,
        meta_info_files=section.meta_info_file,
        filename_template=section.filename_tmpl_gt if key == "dataroot_gt" else "{}",
    )


def _check(found: FoundImages, context: BuildContext) -> None:
    """Raise one UserError for everything that is wrong with the images."""
    check_pairs(found.pairs if context.check else [], found.requirements, context.where(), found.problems)


def _is_synthetic(section: DatasetOptions) -> bool:
    """Whether a section of a paired type has its low-quality images made on the fly."""
    if section.degradation:
        return True
    if _is_denoising(section):
        return section.noise is not None
    return section.task == "CAR" and not section.dataroot_lq and section.quality is not None


def _is_denoising(section: DatasetOptions) -> bool:
    return (section.task or "").startswith("denoising")


def _mode(section: DatasetOptions) -> Literal["color", "gray", "y"]:
    """Gray for gray tasks (JPEG artifact removal is published for gray images) unless `color` says otherwise."""
    if section.color == "y" and section.task == "CAR":
        return "y"  # what is compressed is the luma
    if section.color is not None:
        return "gray" if section.color == "gray" else "color"
    return "gray" if section.task in ("denoising_gray", "CAR") else "color"


def _degradation(section: DatasetOptions, context: BuildContext) -> Degradation:
    """How the section makes low-quality images: by its degradation, or by what its task says."""
    if section.degradation:
        return _degradation_of(section.degradation, context)
    if _is_denoising(section):
        if section.noise is None:
            raise UserError(f"{context.where()}: key 'noise' is missing; give the sigma to add, 0-255")
        return GaussianNoise(section.noise)
    if section.task == "CAR":
        if section.quality is None:
            raise UserError(f"{context.where()}: key 'quality' is missing; give the JPEG quality, 1-100")
        return JpegArtifacts(section.quality)
    if context.scale == 1:
        raise UserError(
            f"{context.where()}: key 'task' is missing; write denoising_color, denoising_gray or CAR, or set a scale"
        )
    return BicubicReduction(context.scale)


def _degradation_of(blocks: Sequence[Mapping[str, Any]], context: BuildContext) -> Degradation:
    """The registered degradations of a list, one after the other, which together must reduce by the scale."""
    steps = []
    for index, block in enumerate(blocks):
        place = context.where(f"degradation.{index}")
        step = DEGRADATIONS.build(block, where=place)
        missing = [key for key in ("scale", "alignment", "margin") if not isinstance(getattr(step, key, None), int)]
        if missing or not callable(step):
            raise UserError(
                f"{place}: {block['type']} has no {' and '.join(missing) or '__call__(image, rng)'}; a degradation has "
                "whole numbers scale, alignment and margin (1, 1, 0 if it works pixel by pixel) and can be called"
            )
        steps.append(step)
    degradation = steps[0] if len(steps) == 1 else Degradations(steps)
    if degradation.scale != context.scale:
        raise UserError(
            f"{context.where('degradation')}: reduces images by {degradation.scale}, but scale is {context.scale}"
        )
    return degradation


def _gt_size(section: DatasetOptions, context: BuildContext) -> int | None:
    """The patch for training: the first stage's where it is progressive."""
    if not context.training:
        return None
    if section.gt_size is None and not section.is_progressive:
        raise UserError(f"{context.where()}: key 'gt_size' is missing; give the side of the training patches in pixels")
    return section.gt_size or section.gt_sizes[0]


def _symmetries(section: DatasetOptions) -> Symmetries:
    return Symmetries(section.use_hflip or section.geometric_augs, section.use_rot or section.geometric_augs)


def _to_tensor(section: DatasetOptions) -> ToTensor:
    return ToTensor(luma=section.color == "y" and _mode(section) == "color", mean=section.mean, std=section.std)
