"""One loss of a training's sum: its name in logs, its weight, what it looks at, and when it begins."""

import inspect
from typing import Literal

from torch import Tensor, nn

from mambair.contracts import Loss
from mambair.errors import UserError

# BT.601's weights of red, green and blue on the scale 0 to 1, and its offset, as published PSNR uses them.
LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)
LUMA_OFFSET = 16 / 255

Seen = Literal["rgb", "y"]


def luma(images: Tensor) -> Tensor:
    """(B, 3, H, W) RGB in [0, 1] -> its BT.601 luma (B, 1, H, W) in [16/255, 235/255]; gray images pass."""
    if images.shape[1] != 3:
        return images
    red, green, blue = images.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue + LUMA_OFFSET


class LossTerm(nn.Module):
    """weight * loss(prediction, target), in the target's precision.

    Args:
        loss: see `mambair.contracts.Loss`.
        weight: factor of the loss.
        on: the images as they are (rgb), or their luma alone (y).
        from_iter: iterations that are done before the loss begins to count.
    """

    def __init__(self, loss: Loss, *, weight: float = 1.0, on: Seen = "rgb", from_iter: int = 0) -> None:
        super().__init__()
        self.loss = loss
        self.weight = weight
        self.on = on
        self.from_iter = from_iter

    @property
    def wants_average(self) -> bool:
        """Whether the loss is also given what the averaged network makes of the batch."""
        call = self.loss.forward if isinstance(self.loss, nn.Module) else self.loss
        return getattr(self.loss, "wants_average", "averaged" in inspect.signature(call).parameters)

    def forward(self, prediction: Tensor, target: Tensor, averaged: Tensor | None = None) -> Tensor:
        """The weighted loss of a batch (B, C, H, W), a scalar. Raises UserError where the loss gives something else."""
        images = [prediction.to(target.dtype), target]  # under autocast the prediction may be half precision
        if self.wants_average and averaged is not None:
            images.append(averaged.to(target.dtype))
        if self.on == "y":
            images = [luma(each) for each in images]
        value = self.loss(*images)
        if not isinstance(value, Tensor) or value.numel() != 1:
            given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UserError(f"{type(self.loss).__name__} gave {given}; a loss gives a tensor with one number")
        return self.weight * value.reshape(())
