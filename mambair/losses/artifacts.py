"""Locally discriminative learning: a pixel loss where a network invents texture (Liang, Zeng and Zhang, 2022).

Shapes: images (B, C, H, W); maps (B, 1, H, W).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mambair.errors import UserError
from mambair.registry import LOSSES


def artifact_map(prediction: Tensor, target: Tensor, averaged: Tensor | None, window: int) -> Tensor:
    """How likely each pixel is an artifact, (B, 1, H, W) of at least 0 (the paper, Eq. 3 to 6).

    The variance of the residual around the pixel, times a power of that of the whole patch; 0 where the averaged
    network is further from the target than the network itself.
    """
    residual = (target - prediction).abs().sum(dim=1, keepdim=True)
    patch = residual.var(dim=(1, 2, 3), keepdim=True) ** (1 / 5)
    pad = window // 2
    parts = F.unfold(F.pad(residual, (pad, pad, pad, pad), mode="reflect"), window)  # (B, window^2, H * W)
    pixel = parts.var(dim=1, unbiased=True).reshape(residual.shape)
    weights = patch * pixel
    if averaged is None:
        return weights
    steady = (target - averaged).abs().sum(dim=1, keepdim=True)
    return torch.where(residual < steady, torch.zeros_like(weights), weights)


@LOSSES.register()
class LDLLoss(nn.Module):
    """Mean absolute error, each pixel weighted by how likely it is an artifact of adversarial training.

    With train.ema_decay the averaged network's images tell artifacts from details, as published; `use_average: false`
    does without. The weights have no gradient of their own.

    Args:
        loss_weight: factor.
        window: side of the neighbourhood, an odd number of pixels.
        use_average: compare with the averaged network.
    """

    def __init__(self, loss_weight: float = 1.0, window: int = 7, use_average: bool = True) -> None:
        super().__init__()
        if window < 3 or window % 2 == 0:
            raise UserError(f"LDLLoss: window is {window}; it must be an odd number from 3 on")
        self.loss_weight = loss_weight
        self.window = window
        self.wants_average = use_average

    def forward(self, prediction: Tensor, target: Tensor, averaged: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            weights = artifact_map(prediction, target, averaged if self.wants_average else None, self.window)
        return self.loss_weight * (weights * (prediction - target).abs()).mean()
