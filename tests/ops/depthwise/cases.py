"""Random depthwise convolutions and what they must yield, written out as sums of shifted images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair.ops import depthwise_conv
from tests.ops.cases import leaves

Arguments = dict[str, Tensor]


def random_convolution(
    *, batch: int = 2, height: int = 5, width: int = 7, channels: int = 6, bias: bool = True, seed: int = 0,
    size: int = 3,
) -> Arguments:  # fmt: skip
    """x, weight, bias (unless left out) and dy, the gradient that arrives, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    arguments = {"x": normal(batch, height, width, channels), "weight": normal(channels, 1, size, size)}
    if bias:
        arguments["bias"] = normal(channels)
    return arguments | {"dy": normal(batch, height, width, channels)}


def shifted_sums(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, silu: bool) -> Tensor:
    """depthwise_conv from nothing but shifts, products and sums."""
    height, width = x.shape[1:3]
    size = weight.shape[2]
    border = size // 2 * dilation
    padded = F.pad(x, (0, 0, border, border, border, border))
    y = torch.zeros_like(x) if bias is None else bias.expand_as(x)
    for i in range(size):
        for j in range(size):
            top, left = i * dilation, j * dilation
            y = y + padded[:, top : top + height, left : left + width] * weight[:, 0, i, j]
    return y * torch.sigmoid(y) if silu else y


def output_and_gradients(function, arguments: Arguments, dilation: int, silu: bool) -> Arguments:
    """y and the gradients of x, weight and bias; the arguments must be leaves."""
    inputs = {name: tensor for name, tensor in arguments.items() if name != "dy"}
    y = function(inputs["x"], inputs["weight"], inputs.get("bias"), dilation, silu)
    found = torch.autograd.grad(y, list(inputs.values()), arguments["dy"].to(y))
    return {"y": y} | dict(zip(inputs, found, strict=True))


def expected(arguments: Arguments, dilation: int, silu: bool) -> Arguments:
    """The truth in float64."""
    return output_and_gradients(shifted_sums, leaves(arguments, torch.float64), dilation, silu)


def found(arguments: Arguments, dilation: int, silu: bool) -> Arguments:
    """What the operator yields."""
    return output_and_gradients(depthwise_conv, arguments, dilation, silu)


def as_slice(x: Tensor) -> Tensor:
    """The same values as the first half of a tensor twice as wide, NaN in the other half; a leaf."""
    wide = torch.full((*x.shape[:3], 2 * x.shape[3]), torch.nan, dtype=x.dtype, device=x.device)
    wide[..., : x.shape[3]] = x.detach()
    return wide[..., : x.shape[3]].requires_grad_()


def spread(x: Tensor) -> Tensor:
    """The same values with a NaN behind every channel; a leaf."""
    wide = torch.full((*x.shape[:3], 2 * x.shape[3]), torch.nan, dtype=x.dtype, device=x.device)
    wide[..., ::2] = x.detach()
    return wide[..., ::2].requires_grad_()
