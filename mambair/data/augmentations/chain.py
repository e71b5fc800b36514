"""Augmentations of an option file, one after the other."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mambair.contracts import Augmentation
from mambair.errors import UserError
from mambair.registry import AUGMENTATIONS


class AugmentationChain:
    """Applies augmentations in order; each has its own random stream, so that one more changes no other's draws."""

    def __init__(self, augmentations: Sequence[Augmentation]) -> None:
        self.augmentations = list(augmentations)

    def __call__(self, lq: Tensor, gt: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The changed pair or batch. Raises UserError where an augmentation changes the shapes."""
        for augmentation in self.augmentations:
            new_lq, new_gt = augmentation(lq, gt, np.random.default_rng(rng.integers(2**63, size=2)))
            if new_lq.shape != lq.shape or new_gt.shape != gt.shape:
                raise UserError(
                    f"{type(augmentation).__name__} made {tuple(new_lq.shape)} and {tuple(new_gt.shape)} of "
                    f"{tuple(lq.shape)} and {tuple(gt.shape)}; an augmentation keeps the shapes"
                )
            lq, gt = new_lq, new_gt
        return lq, gt


def build_augmentations(
    blocks: Sequence[Mapping[str, Any]], where: Callable[[str], str], key: str, *, per_batch: bool
) -> AugmentationChain | None:
    """The augmentations of a list in an option file, None for an empty one.

    Args:
        blocks: {'type': name, **keywords} each.
        where: names file and line of a key path, for errors.
        key: the list's key path.
        per_batch: whether they are for batches or for single pairs.

    Raises:
        UserError: a block that cannot be built, or one that is for the other of the two.
    """
    built = []
    for index, block in enumerate(blocks):
        place = where(f"{key}.{index}")
        augmentation = AUGMENTATIONS.build(block, where=place)
        if not callable(augmentation):
            raise UserError(f"{place}: {block['type']} cannot be called as augmentation(lq, gt, rng)")
        if getattr(augmentation, "per_batch", per_batch) != per_batch:
            home = "datasets.train.augmentations" if per_batch else "train.augmentations"
            raise UserError(f"{place}: {block['type']} is not for {_WHAT[per_batch]}; write it under {home}")
        built.append(augmentation)
    return AugmentationChain(built) if built else None


_WHAT = {True: "batches", False: "single pairs"}
