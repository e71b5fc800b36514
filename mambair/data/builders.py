"""From a data set's section of an option file to the data set. DATASETS maps the `type` names to builders."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mambair.data.image_sources import ImageEntry
from mambair.data.paired_dataset import PairedImageDataset
from mambair.data.pairing import Pair, Problem, Requirements, check_pairs, list_entries, pair_images
from mambair.data.single_dataset import SingleImageDataset
from mambair.data.synthesis import BicubicReduction, Degradation, GaussianNoise, JpegArtifacts
from mambair.data.synthetic_dataset import SyntheticDataset
from mambair.data.transforms import Symmetries, ToTensor
from mambair.errors import UserError
from mambair.options.dataset_schema import DatasetOptions
from mambair.registry import DATASETS


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


def build_dataset(section: DatasetOptions, context: BuildContext) -> PairedImageDataset | SyntheticDataset:
    """The data set that a section describes.

    Raises UserError that names the section: unknown type, keys that are missing, roots that are missing or empty, and,
    if the context says so, every image that has no partner or cannot be used.
    """
    return DATASETS.get(section.type, context.where("type"))(section, context)


@DATASETS.register("PairedImageDataset")
@DATASETS.register("Dataset_PairedImage")
def build_paired(section: DatasetOptions, context: BuildContext) -> PairedImageDataset | SyntheticDataset:
    """Pairs on disk; with `noise`, or without dataroot_lq where `quality` is given, the partners are made on the fly.

    Published files of denoising name the ground truth's folder as dataroot_lq too: it is not read then.
    """
    if _is_denoising(section) and section.noise is not None:
        return build_synthetic(section, context)
    if section.task == "CAR" and not section.dataroot_lq and section.quality is not None:
        return build_synthetic(section, context)
    if not section.dataroot_lq:
        raise UserError(
            f"{context.where()}: key 'dataroot_lq' is missing; give the folder of low-quality images, "
            "or write type: SyntheticDataset to make them on the fly"
        )
    _need_roots(section, context)
    pairs, problems = pair_images(
        section.dataroot_gt,
        section.dataroot_lq,
        backend=section.io_backend.type,
        meta_info_files=section.meta_info_file,
        filename_template=section.filename_tmpl,
        where_gt=context.where("dataroot_gt"),
        where_lq=context.where("dataroot_lq"),
    )
    _check(pairs, section, context, context.scale, problems)
    return PairedImageDataset(
        pairs,
        scale=context.scale,
        mode=_mode(section),
        gt_size=_gt_size(section, context),
        symmetries=_symmetries(section),
        to_tensor=_to_tensor(section),
    )


@DATASETS.register("SyntheticDataset")
def build_synthetic(section: DatasetOptions, context: BuildContext) -> SyntheticDataset:
    """Ground truth only; the task says how its partners are made."""
    entries = list_ground_truth(section, context)
    degradation = _degradation(section, context)
    _check([Pair(entry) for entry in entries], section, context, degradation.scale)
    return SyntheticDataset(
        entries,
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
    if not section.dataroot_lq:
        raise UserError(f"{context.where()}: key 'dataroot_lq' is missing; give the folder of images to restore")
    entries = list_entries(
        section.dataroot_lq,
        context.where("dataroot_lq"),
        backend=section.io_backend.type,
        meta_info_files=section.meta_info_file,
    )
    if context.check:
        check_pairs([Pair(entry) for entry in entries], Requirements(color=False), context.where())
    return SingleImageDataset(entries, mode=_mode(section), to_tensor=_to_tensor(section))


def list_ground_truth(section: DatasetOptions, context: BuildContext) -> list[ImageEntry]:
    """The images of dataroot_gt that a section chooses."""
    _need_roots(section, context)
    return list_entries(
        section.dataroot_gt,
        context.where("dataroot_gt"),
        backend=section.io_backend.type,
        meta_info_files=section.meta_info_file,
    )


def _need_roots(section: DatasetOptions, context: BuildContext) -> None:
    if not section.dataroot_gt:
        raise UserError(f"{context.where()}: key 'dataroot_gt' is missing; give the folder of ground-truth images")


def _is_denoising(section: DatasetOptions) -> bool:
    return (section.task or "").startswith("denoising")


def _mode(section: DatasetOptions) -> Literal["color", "gray"]:
    """Gray for gray tasks (JPEG artifact removal is published for gray images) unless `color` says otherwise."""
    if section.color is not None:
        return "gray" if section.color == "gray" else "color"
    return "gray" if section.task in ("denoising_gray", "CAR") else "color"


def _degradation(section: DatasetOptions, context: BuildContext) -> Degradation:
    """How the section's task makes low-quality images."""
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
    return ToTensor(luma=section.color == "y", mean=section.mean, std=section.std)


def _check(
    pairs: Sequence[Pair],
    section: DatasetOptions,
    context: BuildContext,
    scale: int,
    problems: Sequence[Problem] = (),
) -> None:
    """Raise one UserError for everything that is wrong with the images."""
    largest = max([*section.gt_sizes, section.gt_size or 0]) if context.training else 0
    requirements = Requirements(scale, color=_mode(section) == "color", gt_size=largest or None)
    check_pairs(pairs if context.check else [], requirements, context.where(), problems)
