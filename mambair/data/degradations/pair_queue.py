"""A pool of training pairs that mixes differently degraded images within a batch.

One batch is degraded with one resize factor and one kind of noise; drawing from a pool of earlier pairs gives
batches of many (Real-ESRGAN, Section 4.1).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor


class PairQueue:
    """Holds up to `capacity` pairs; once full, every batch put in takes random older pairs' places and they come out.

    Until it is full, batches pass through unchanged. Lives on the device of the pairs.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._gt: Tensor | None = None
        self._lq: Tensor | None = None
        self._filled = 0

    def __len__(self) -> int:
        return self._filled

    @torch.no_grad()
    def exchange(self, gt: Tensor, lq: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Put (B, C, H, W) and (B, C, H/s, W/s) in and get as many pairs out; shapes must stay the same."""
        if self._gt is None or self._lq is None:
            self._gt = gt.new_zeros(self.capacity, *gt.shape[1:])
            self._lq = lq.new_zeros(self.capacity, *lq.shape[1:])
        batch = len(gt)
        if self._filled + batch <= self.capacity:
            self._gt[self._filled : self._filled + batch] = gt
            self._lq[self._filled : self._filled + batch] = lq
            self._filled += batch
            return gt, lq
        places = torch.from_numpy(rng.choice(self._filled, size=min(batch, self._filled), replace=False)).to(gt.device)
        out = self._gt[places], self._lq[places]
        self._gt[places], self._lq[places] = gt[: len(places)], lq[: len(places)]
        # A batch larger than the pool: what has no place in it passes through.
        return torch.cat([out[0], gt[len(places) :]]), torch.cat([out[1], lq[len(places) :]])

    def state_dict(self) -> dict[str, Any]:
        """The pairs held, as uint8 (they lie on the 255 grid), for a checkpoint."""
        if self._gt is None or self._lq is None:
            return {}
        return {name: _to_bytes(pairs[: self._filled]) for name, pairs in (("gt", self._gt), ("lq", self._lq))}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Put back what `state_dict` gave; more pairs than fit (a smaller queue_size now) are cut off."""
        self._gt = self._lq = None
        self._filled = 0
        if not state:
            return
        gt, lq = (state[name][: self.capacity].to(device).float() / 255 for name in ("gt", "lq"))
        self._gt = gt.new_zeros(self.capacity, *gt.shape[1:])
        self._lq = lq.new_zeros(self.capacity, *lq.shape[1:])
        self._gt[: len(gt)], self._lq[: len(lq)] = gt, lq
        self._filled = len(gt)


def _to_bytes(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8).cpu()
