"""Losses on colour alone.

Shapes: images (B, 3, H, W) in [0, 1].
"""

from torch import Tensor, nn
from torch.nn import functional as F

from mambair.errors import UserError
from mambair.registry import LOSSES

COLOR_SPACES = ("rgb", "chroma")
# BT.601 without offsets: how blue and red differ from the luma, in [-0.5, 0.5].
BLUE_DIFFERENCE = (-0.168736, -0.331264, 0.5)
RED_DIFFERENCE = (0.5, -0.418688, -0.081312)


def chroma(images: Tensor) -> Tensor:
    """RGB (B, 3, H, W) -> its two colour differences (B, 2, H, W)."""
    weights = images.new_tensor([BLUE_DIFFERENCE, RED_DIFFERENCE])  # (2, 3)
    return F.conv2d(images, weights.view(2, 3, 1, 1))


@LOSSES.register()
class ColorLoss(nn.Module):
    """Mean absolute difference of the mean colours of blocks: colours stay true where details are free to differ.

    Args:
        loss_weight: factor.
        factor: side of the blocks in pixels; the patch is reduced by it.
        space: rgb, or chroma, which leaves brightness out.
    """

    def __init__(self, loss_weight: float = 1.0, factor: int = 8, space: str = "rgb") -> None:
        super().__init__()
        if space not in COLOR_SPACES:
            raise UserError(f"ColorLoss: space '{space}' is not known; use {' or '.join(COLOR_SPACES)}")
        if factor < 1:
            raise UserError(f"ColorLoss: factor is {factor}; it must be at least 1")
        self.loss_weight = loss_weight
        self.factor = factor
        self.space = space

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        if min(target.shape[2:]) < self.factor:
            raise UserError(f"ColorLoss: blocks of {self.factor} pixels do not fit patches of {min(target.shape[2:])}")
        difference = prediction - target
        if self.space == "chroma":
            if difference.shape[1] != 3:
                raise UserError("ColorLoss: gray images have no chroma; use space: rgb")
            difference = chroma(difference)
        return self.loss_weight * F.avg_pool2d(difference, self.factor).abs().mean()
