"""Self-ensemble: the mean over the eight flips and transpositions of an image (MambaIR+ in the paper)."""

from collections.abc import Callable

import torch

ROWS, COLUMNS = -2, -1
FLIPS = ((), (ROWS,), (COLUMNS,), (ROWS, COLUMNS))


def self_ensemble(fn: Callable[[torch.Tensor], torch.Tensor], lq: torch.Tensor) -> torch.Tensor:
    """Restore `lq` in its eight orientations and return the mean of the results, turned back.

    `fn` maps (B, C, h, w) to (B, C', s*h, s*w) for any h and w; `lq` is (B, C, H, W). The mean is taken in
    float32 before any rounding. Takes eight times the time of `fn`, and the memory of one more result.
    """
    total = None
    for transpose in (False, True):
        turned = lq.transpose(ROWS, COLUMNS) if transpose else lq
        for flip in FLIPS:
            restored = fn(turned.flip(flip).contiguous()).flip(flip).float()
            restored = restored.transpose(ROWS, COLUMNS) if transpose else restored
            total = restored if total is None else total + restored
    assert total is not None
    return total / (2 * len(FLIPS))
