"""Losses on edges.

Shapes: images (B, C, H, W); every channel is filtered by itself.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from mambair.errors import UserError
from mambair.registry import LOSSES

KERNELS: dict[str, list[list[list[float]]]] = {
    "sobel": [[[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], [[-1, -2, -1], [0, 0, 0], [1, 2, 1]]],
    "scharr": [[[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]], [[-3, -10, -3], [0, 0, 0], [3, 10, 3]]],
    "laplacian": [[[0, 1, 0], [1, -4, 1], [0, 1, 0]]],
}
"""The filters of an operator; each is divided by the sum of its positive weights."""


def edges(images: Tensor, operator: str) -> Tensor:
    """(B, C, H, W) -> (B, C * K, H, W), K responses of each channel; the border is continued."""
    channels = images.shape[1]
    kernels = images.new_tensor(KERNELS[operator])  # (K, 3, 3)
    kernels = kernels / kernels.clamp(min=0).sum(dim=(1, 2), keepdim=True)
    weight = kernels.unsqueeze(1).repeat(channels, 1, 1, 1)  # (C * K, 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), weight, groups=channels)


@LOSSES.register()
class GradientLoss(nn.Module):
    """Mean absolute difference of edges, by `operator`: sobel, scharr (two directions each) or laplacian."""

    def __init__(self, loss_weight: float = 1.0, operator: str = "sobel") -> None:
        super().__init__()
        if operator not in KERNELS:
            raise UserError(f"GradientLoss: operator '{operator}' is not known; use {', '.join(KERNELS)}")
        self.loss_weight = loss_weight
        self.operator = operator

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        # The operators are linear: the difference of the edges is the edges of the difference.
        return self.loss_weight * edges(prediction - target, self.operator).abs().mean()
