"""MixUp of whole training pairs, the augmentation of the real-denoising recipe."""

from typing import ClassVar

import numpy as np
from torch import Tensor

from mambair.errors import UserError
from mambair.registry import AUGMENTATIONS


@AUGMENTATIONS.register()
class MixUp:
    """Blends each pair of a batch with another one: w * a + (1 - w) * b with w ~ Beta(beta, beta).

    LQ and GT are blended alike. With `use_identity` half of the batches, drawn at random, pass unchanged; `probability`
    is the part of the others that is blended.
    """

    per_batch: ClassVar[bool] = True

    def __init__(self, beta: float = 1.2, use_identity: bool = True, probability: float = 1.0) -> None:
        if beta <= 0:
            raise UserError(f"train: mixing_augs: mixup_beta is {beta}; it must be above 0")
        self.beta = beta
        self.use_identity = use_identity
        self.probability = check_probability(probability)

    def __call__(self, lq: Tensor, gt: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Mixed (lq, gt) of the same shapes, (B, C, H, W) each."""
        if self.use_identity and rng.random() < 0.5:
            return lq, gt
        if self.probability < 1 and rng.random() >= self.probability:
            return lq, gt
        weight = float(rng.beta(self.beta, self.beta))
        partner = rng.permutation(lq.shape[0]).tolist()
        return weight * lq + (1 - weight) * lq[partner], weight * gt + (1 - weight) * gt[partner]


def check_probability(probability: float) -> float:
    """The probability, if it is one; else UserError."""
    if not 0 <= probability <= 1:
        raise UserError(f"probability: {probability} must lie between 0 and 1")
    return probability
