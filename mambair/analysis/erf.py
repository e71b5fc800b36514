"""Effective receptive field: which input pixels the centre of the result depends on (the paper, Fig. 1).

The contribution of an input pixel is the absolute gradient of the result's centre with respect to it (Luo et al.,
2016), summed over channels and averaged over images.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

# Shares of the total contribution for which the smallest centred square is reported.
THRESHOLDS = (0.2, 0.3, 0.5, 0.99)


@dataclass(frozen=True)
class CentredSquare:
    """The smallest centred square of input pixels that holds a share of the contributions."""

    share: float
    """Share of the total contribution."""
    side: int
    """Its side in pixels; it may reach over the edge of the image."""
    area: float
    """Its part of the image's area, 0 to 1."""


def contribution_map(network: nn.Module, images: Iterable[Tensor], scale: int = 1) -> np.ndarray:
    """Mean contribution of each input pixel to the centre of the result.

    Args:
        network: maps (1, C, H, W) to (1, C', s*H, s*W); gradients must flow to its input.
        images: (C, H, W) tensors of one size, in [0, 1], on the network's device.
        scale: s; the s x s pixels of the result that lie over the central input pixel are summed.

    Returns:
        (H, W) float64 array, all values >= 0. The central pixel is (H // 2, W // 2).
    """
    total = None
    count = 0
    for image in images:
        lq = image[None].detach().clone().requires_grad_(True)
        height, width = lq.shape[2:]
        top, left = height // 2 * scale, width // 2 * scale
        centre = network(lq)[:, :, top : top + scale, left : left + scale].sum()
        (gradient,) = torch.autograd.grad(centre, lq)
        contribution = gradient.abs().sum(dim=(0, 1)).double().cpu().numpy()  # (H, W)
        total = contribution if total is None else total + contribution
        count += 1
    assert total is not None, "no images"
    return total / count


def support_size(contributions: np.ndarray) -> tuple[int, int]:
    """(rows, columns) of the smallest rectangle around all pixels with any contribution; (0, 0) if there is none."""
    rows, columns = (np.flatnonzero((contributions > 0).any(axis=axis)) for axis in (1, 0))
    if len(rows) == 0:
        return 0, 0
    return int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)


def centred_squares(contributions: np.ndarray, shares: Sequence[float] = THRESHOLDS) -> list[CentredSquare]:
    """For each share, the smallest square around the central pixel that holds it."""
    height, width = contributions.shape
    rows, columns = np.ogrid[:height, :width]
    distance = np.maximum(abs(rows - height // 2), abs(columns - width // 2))  # (H, W), in whole pixels
    inside = np.cumsum(np.bincount(distance.ravel(), weights=contributions.ravel()))
    squares = []
    for share in shares:
        # The sum of floats may fall short of the whole by its rounding.
        radius = int(np.searchsorted(inside, share * inside[-1] * (1 - 1e-12)))
        area = np.count_nonzero(distance <= radius) / (height * width)
        squares.append(CentredSquare(share, 2 * radius + 1, area))
    return squares


def display_map(contributions: np.ndarray) -> np.ndarray:
    """Contributions for a figure: their logarithm, from 0 (at most a millionth of the largest) to 1 (the largest)."""
    decades = 6
    largest = max(float(contributions.max()), math.ulp(0.0))
    relative = np.maximum(contributions / largest, 10.0**-decades)
    return 1 + np.log10(relative) / decades
