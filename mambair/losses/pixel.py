"""Pixel losses between a restored batch and its ground truth, each `loss(prediction, target) -> scalar`.

Under autocast the prediction may be half precision: it is brought to the target's type first, so that a loss is
always computed in the target's precision (float32 in training).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mambair.errors import UserError
from mambair.registry import LOSSES

REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"mean": torch.mean, "sum": torch.sum}


class PixelLoss(nn.Module, ABC):
    """loss_weight * reduction(penalty(prediction - target)); both of shape (B, C, H, W), or any equal shapes."""

    def __init__(self, loss_weight: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise UserError(f"{type(self).__name__}: reduction '{reduction}' is not known; use mean or sum")
        self.loss_weight = loss_weight
        self.reduction = reduction

    @abstractmethod
    def penalty(self, difference: Tensor) -> Tensor:
        """The penalty of every single difference, of the same shape."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        assert prediction.shape == target.shape, f"prediction {prediction.shape} against target {target.shape}"
        penalty = self.penalty(prediction.to(target.dtype) - target)
        return self.loss_weight * REDUCTIONS[self.reduction](penalty)


@LOSSES.register()
class L1Loss(PixelLoss):
    """Mean absolute error."""

    def penalty(self, difference: Tensor) -> Tensor:
        return difference.abs()


@LOSSES.register()
class MSELoss(PixelLoss):
    """Mean squared error."""

    def penalty(self, difference: Tensor) -> Tensor:
        return difference.square()


@LOSSES.register()
class CharbonnierLoss(PixelLoss):
    """sqrt(d^2 + eps): L1 with a smooth bottom.

    `eps` stands under the root as it is, the meaning it has in published option files. The paper writes
    sqrt(d^2 + eps^2) with eps 1e-3: its loss is `eps=1e-6` here.
    """

    def __init__(self, loss_weight: float = 1.0, reduction: str = "mean", eps: float = 1e-3) -> None:
        super().__init__(loss_weight, reduction)
        if eps <= 0:
            raise UserError(f"CharbonnierLoss: eps is {eps}; it must be above 0")
        self.eps = eps

    def penalty(self, difference: Tensor) -> Tensor:
        return torch.sqrt(difference.square() + self.eps)
