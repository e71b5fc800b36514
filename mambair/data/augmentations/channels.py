"""Augmentations of colour."""

import numpy as np
from torch import Tensor

from mambair.data.augmentations.mixup import check_probability
from mambair.registry import AUGMENTATIONS


@AUGMENTATIONS.register()
class ChannelShuffle:
    """Red, green and blue in another order, the same in LQ and GT, for a pair or a whole batch; gray images pass."""

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = check_probability(probability)

    def __call__(self, lq: Tensor, gt: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Shuffled (lq, gt), (..., C, H, W) each."""
        if rng.random() >= self.probability:
            return lq, gt
        order = rng.permutation(lq.shape[-3]).tolist()
        return lq[..., order, :, :], gt[..., order, :, :]
