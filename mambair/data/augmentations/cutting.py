"""Augmentations that put a rectangle of one image into another.

Rectangles lie on the pixels of the low-quality image; those of the ground truth are s times as large, s the scale.
Shapes: lq (B, C, h, w), gt (B, C, s*h, s*w).
"""

from typing import ClassVar

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from mambair.data.augmentations.mixup import check_probability
from mambair.data.transforms import Window
from mambair.errors import UserError
from mambair.registry import AUGMENTATIONS


def draw_window(height: int, width: int, rows: int, columns: int, rng: np.random.Generator) -> Window:
    """A rows x columns rectangle somewhere in a height x width image."""
    return Window(int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1)), rows, columns)


def part_of(tensor: Tensor, window: Window) -> Tensor:
    """The rectangle of (..., H, W); a view."""
    return tensor[..., window.top : window.top + window.height, window.left : window.left + window.width]


def pasted(tensor: Tensor, window: Window, content: Tensor) -> Tensor:
    """A copy of (..., H, W) with `content` in the rectangle."""
    tensor = tensor.clone()
    part_of(tensor, window).copy_(content)
    return tensor


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """(B, C, H, W) resized bicubically with antialiasing, within [0, 1]."""
    return F.interpolate(images, (height, width), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


@AUGMENTATIONS.register()
class CutMix:
    """A rectangle of each pair is that of another pair of the batch (Yun et al., 2019), the same in LQ and GT.

    Its area is 1 - w of the image, w ~ Beta(beta, beta).
    """

    per_batch: ClassVar[bool] = True

    def __init__(self, probability: float = 0.5, beta: float = 1.0) -> None:
        if beta <= 0:
            raise UserError(f"CutMix: beta is {beta}; it must be above 0")
        self.probability = check_probability(probability)
        self.beta = beta

    def __call__(self, lq: Tensor, gt: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Mixed (lq, gt) of the same shapes."""
        if rng.random() >= self.probability:
            return lq, gt
        side = float(np.sqrt(1 - rng.beta(self.beta, self.beta)))
        height, width = lq.shape[-2:]
        window = draw_window(height, width, round(side * height), round(side * width), rng)
        large = window.scaled(gt.shape[-1] // width)
        partner = rng.permutation(lq.shape[0]).tolist()
        return pasted(lq, window, part_of(lq, window)[partner]), pasted(gt, large, part_of(gt, large)[partner])


@AUGMENTATIONS.register()
class CutBlur:
    """A rectangle of LQ, or all around it, is as clean as GT (Yoo et al., 2020): a network learns where to do nothing.

    At a scale above 1, where the paper enlarges LQ first, what is put in is GT reduced bicubically; for bicubic
    super-resolution that is LQ itself, and nothing changes. GT stays as it is.
    """

    def __init__(self, probability: float = 0.5, alpha: float = 0.7) -> None:
        if not 0 < alpha <= 1:
            raise UserError(f"CutBlur: alpha is {alpha}, the largest side as a part of the image's; 0 < alpha <= 1")
        self.probability = check_probability(probability)
        self.alpha = alpha

    def __call__(self, lq: Tensor, gt: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Changed lq, and gt as it is; (B, C, H, W) or (C, H, W) each."""
        if rng.random() >= self.probability:
            return lq, gt
        height, width = lq.shape[-2:]
        side = rng.uniform(0.2 * self.alpha, self.alpha)
        window = draw_window(height, width, max(1, int(side * height)), max(1, int(side * width)), rng)
        clean = gt
        if gt.shape[-2:] != lq.shape[-2:]:
            clean = resized(gt.reshape(-1, *gt.shape[-3:]), height, width).reshape(lq.shape)
        if rng.random() < 0.5:
            return pasted(lq, window, part_of(clean, window)), gt
        return pasted(clean, window, part_of(lq, window)), gt


@AUGMENTATIONS.register()
class ResizeMix:
    """Another pair of the batch, made smaller, covers a part of each (Qin et al., 2020).

    Its side is between `smallest` and `largest` times the image's. LQ and GT are resized apart from each other, so that
    the smaller pair's degradation is a milder one.
    """

    per_batch: ClassVar[bool] = True

    def __init__(self, probability: float = 0.5, smallest: float = 0.1, largest: float = 0.8) -> None:
        if not 0 < smallest <= largest <= 1:
            raise UserError(f"ResizeMix: 0 < smallest <= largest <= 1 is needed, not {smallest} and {largest}")
        self.probability = check_probability(probability)
        self.smallest = smallest
        self.largest = largest

    def __call__(self, lq: Tensor, gt: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Mixed (lq, gt) of the same shapes."""
        if rng.random() >= self.probability:
            return lq, gt
        height, width = lq.shape[-2:]
        side = rng.uniform(self.smallest, self.largest)
        window = draw_window(height, width, max(1, int(side * height)), max(1, int(side * width)), rng)
        large = window.scaled(gt.shape[-1] // width)
        partner = rng.permutation(lq.shape[0]).tolist()
        return (
            pasted(lq, window, resized(lq[partner], window.height, window.width)),
            pasted(gt, large, resized(gt[partner], large.height, large.width)),
        )
