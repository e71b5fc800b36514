"""Ground truth and blur kernels for real-world super-resolution; the degradation itself happens on the device."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from mambair.data.builders import BuildContext, list_ground_truth
from mambair.data.degradations.blur_kernels import KernelDistribution
from mambair.data.image_sources import ImageEntry
from mambair.data.pairing import Pair, Requirements, check_pairs
from mambair.data.transforms import Symmetries, Window
from mambair.errors import UserError
from mambair.imaging.tensors import image_to_tensor
from mambair.options.dataset_schema import DatasetOptions
from mambair.registry import DATASETS

PATCH_MARGIN = 144
"""A sample is this much larger than the patch that is trained on: 400 pixels for Real-ESRGAN's 256. The degradation
can then be cropped without the borders that blurring and resizing made."""


class RealESRGANDataset(Dataset):
    """Random crops of clean images with the blur kernels to degrade them with.

    Args:
        entries: the ground truth.
        gt_size: side of the patches to train on; samples are PATCH_MARGIN pixels larger, images that are smaller
            than that are continued by reflection.
        first, second: what the blur kernels of the two rounds are drawn from.
        final_sinc_odds: probability that the kernel next to the last JPEG compression is a sinc filter.
        symmetries: drawn per sample.
    """

    def __init__(
        self,
        entries: Sequence[ImageEntry],
        gt_size: int,
        *,
        first: KernelDistribution,
        second: KernelDistribution,
        final_sinc_odds: float = 0.8,
        symmetries: Symmetries = Symmetries(),  # noqa: B008 (frozen)
    ) -> None:
        self.entries = list(entries)
        self.gt_size = gt_size
        self.first = first
        self.second = second
        self.final_sinc_odds = final_sinc_odds
        self.symmetries = symmetries

    def __len__(self) -> int:
        return len(self.entries)

    def sample(self, index: int, rng: np.random.Generator, gt_size: int | None = None) -> dict:
        """Image `index`: "gt" (3, p, p) in [0, 1], p = gt_size + PATCH_MARGIN, "gt_path", and the kernels "kernel1",
        "kernel2", "sinc_kernel" (k, k), float32."""
        entry = self.entries[index]
        side = (gt_size or self.gt_size) + PATCH_MARGIN
        image = pad_to(entry.read("color"), side)
        top, left = (int(rng.integers(length - side + 1)) for length in image.shape[:2])
        (patch,) = self.symmetries.draw(rng, Window(top, left, side, side).cut(image))
        return {
            "gt": image_to_tensor(patch),
            "gt_path": entry.path,
            "kernel1": torch.from_numpy(self.first.draw(rng)),
            "kernel2": torch.from_numpy(self.second.draw(rng)),
            "sinc_kernel": torch.from_numpy(self.first.draw_sinc_or_identity(self.final_sinc_odds, rng)),
        }


def pad_to(image: np.ndarray, side: int) -> np.ndarray:
    """An (H, W, C) image continued by reflection, at the bottom and right, to at least side x side."""
    missing = [max(0, side - length) for length in image.shape[:2]]
    return np.pad(image, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="reflect") if any(missing) else image


@DATASETS.register("RealESRGANDataset")
def build_real_world(section: DatasetOptions, context: BuildContext) -> RealESRGANDataset:
    """Clean images from dataroot_gt, with the section's blur kernels."""
    if not context.training:
        raise UserError(f"{context.where('type')}: RealESRGANDataset is for training; test on pairs or single images")
    for key in ("augmentations", "degradation"):
        if getattr(section, key):
            hint = "; train.augmentations changes its pairs" if key == "augmentations" else ""
            raise UserError(f"{context.where(key)}: RealESRGANDataset makes pairs on the device, not here{hint}")
    if section.gt_size is None:
        raise UserError(f"{context.where()}: key 'gt_size' is missing; give the side of the training patches in pixels")
    entries = list_ground_truth(section, context)
    check_pairs([Pair(entry) for entry in entries] if context.check else [], Requirements(), context.where())
    return RealESRGANDataset(
        entries,
        section.gt_size,
        first=_kernels(section, ""),
        second=_kernels(section, "2"),
        final_sinc_odds=section.final_sinc_prob,
        symmetries=Symmetries(section.use_hflip, section.use_rot),
    )


def _kernels(section: DatasetOptions, suffix: str) -> KernelDistribution:
    """The kernels of a round; the option file's names for the second one end in 2."""
    return KernelDistribution(
        size=getattr(section, f"blur_kernel_size{suffix}"),
        kinds=tuple(getattr(section, f"kernel_list{suffix}")),
        odds=tuple(getattr(section, f"kernel_prob{suffix}")),
        sinc_odds=getattr(section, f"sinc_prob{suffix}"),
        sigma=tuple(getattr(section, f"blur_sigma{suffix}")),
        beta_gaussian=tuple(getattr(section, f"betag_range{suffix}")),
        beta_plateau=tuple(getattr(section, f"betap_range{suffix}")),
    )
