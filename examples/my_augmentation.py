"""An augmentation of one's own: changes whole batches, low quality and ground truth alike."""

import numpy as np
from torch import Tensor

from mambair.registry import AUGMENTATIONS


@AUGMENTATIONS.register()
class MyAugmentation:
    """Darkens a batch: what a network does should not depend on the exposure."""

    per_batch = True

    def __init__(self, probability: float = 0.5, darkest: float = 0.5) -> None:
        self.probability, self.darkest = probability, darkest

    def __call__(self, lq: Tensor, gt: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        if rng.random() >= self.probability:
            return lq, gt
        factor = float(rng.uniform(self.darkest, 1))
        return factor * lq, factor * gt
