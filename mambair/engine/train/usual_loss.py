"""What losses are usually like, to notice one that jumps."""

import torch
from torch import Tensor

SPIKE_FACTOR = 8.0
WARMUP = 100
WINDOW = 100


class UsualLoss:
    """A running mean of a loss. It stays on the loss's device, so that keeping it costs no wait for that device."""

    def __init__(self, device: torch.device) -> None:
        self._mean = torch.zeros((), device=device)
        self._count = 0

    def is_spike(self, loss: Tensor) -> Tensor:
        """Whether `loss` is many times the mean of those before it (a bool scalar); takes it into the mean if not.

        A loss that is not finite is no spike and not taken in. The first losses of a run fall too fast to judge.
        """
        spike = loss > SPIKE_FACTOR * self._mean if self._count >= WARMUP else torch.zeros_like(loss, dtype=torch.bool)
        spike = spike & loss.isfinite()
        self._count = min(self._count + 1, WINDOW)
        usual = loss.isfinite() & ~spike
        self._mean = torch.where(usual, self._mean + (loss - self._mean) / self._count, self._mean)
        return spike
