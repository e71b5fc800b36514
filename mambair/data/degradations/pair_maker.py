"""From a batch of a RealESRGANDataset to the pairs that a network trains on."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mambair.data.degradations.filters import sharpen
from mambair.data.degradations.pair_queue import PairQueue
from mambair.data.degradations.second_order import (
    FIRST_ROUND,
    SECOND_ROUND,
    BatchKernels,
    Draws,
    RoundSettings,
    degrade,
)


class PairMaker:
    """Degrades, crops and mixes batches on the device that the images lie on; the only state is the queue."""

    def __init__(
        self,
        scale: int,
        gt_size: int,
        queue_size: int = 180,
        first: RoundSettings = FIRST_ROUND,
        second: RoundSettings = SECOND_ROUND,
        sharpened: bool = True,
    ) -> None:
        assert gt_size % scale == 0
        self.sharpened = sharpened
        self.scale = scale
        self.gt_size = gt_size
        self.first = first
        self.second = second
        self.queue = PairQueue(queue_size)

    @torch.no_grad()
    def make(self, batch: dict[str, Any], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Ground truth (B, 3, g, g) and low quality (B, 3, g/scale, g/scale), g = gt_size, both on the 255 grid.

        `batch` holds `gt` (B, 3, H, W) in [0, 1] and the kernels `kernel1`, `kernel2`, `sinc_kernel` (B, k, k). The
        low-quality images come from the sharpened ground truth, as Real-ESRGAN makes them, unless `sharpened` is false;
        the ground truth itself is returned unsharpened.
        """
        gt = batch["gt"]
        kernels = BatchKernels(batch["kernel1"], batch["kernel2"], batch["sinc_kernel"])
        draws = Draws(rng, gt.device)
        lq = degrade(sharpen(gt) if self.sharpened else gt, kernels, self.scale, draws, self.first, self.second)
        gt, lq = crop_pair(gt, lq, self.gt_size, self.scale, rng)
        return self.queue.exchange(gt, lq, rng)

    def state_dict(self) -> dict[str, Any]:
        """The queue's pairs."""
        return self.queue.state_dict()

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Put the queue's pairs back."""
        self.queue.load_state_dict(state, device)


def crop_pair(gt: Tensor, lq: Tensor, gt_size: int, scale: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The same random square of both batches: (.., gt_size, gt_size) and (.., gt_size/scale, gt_size/scale)."""
    lq_size = gt_size // scale
    top, left = (int(rng.integers(side - lq_size + 1)) for side in lq.shape[-2:])
    lq = lq[..., top : top + lq_size, left : left + lq_size]
    top, left = top * scale, left * scale
    return gt[..., top : top + gt_size, left : left + gt_size], lq
