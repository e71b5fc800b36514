"""A loss of one's own: called with the restored batch and the ground truth, it gives a number that is to fall."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from mambair.registry import LOSSES


@LOSSES.register()
class MyLoss(nn.Module):
    """log(cosh(difference / width)): squared for small differences, absolute for large ones."""

    def __init__(self, width: float = 0.1) -> None:
        super().__init__()
        self.width = width

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        ratio = (prediction - target).abs() / self.width
        return self.width * (ratio + F.softplus(-2 * ratio) - math.log(2)).mean()
