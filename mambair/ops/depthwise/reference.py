"""depthwise_conv with PyTorch's own convolution: every device, every floating type."""

import torch
import torch.nn.functional as F
from torch import Tensor


def depthwise_conv_reference(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, silu: bool) -> Tensor:
    """See `depthwise_conv`. The image is viewed as (B, C, H, W) in the channels-last format, so nothing is copied."""
    kind = x.device.type
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        weight = weight.to(x.dtype)
        bias = None if bias is None else bias.to(x.dtype)
    needs_gradients = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if dilation > 1 and kind == "cpu" and needs_gradients:
        y = _by_phases(x, weight, bias, dilation)
    else:
        y = _convolve(x, weight, bias, dilation)
    return (F.silu(y) if silu else y).contiguous()


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    padding = weight.shape[2] // 2 * dilation
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=padding, dilation=dilation, groups=x.shape[3])
    return y.permute(0, 2, 3, 1)


def _by_phases(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """A dilated convolution as a plain one of the images that every dilation-th pixel makes.

    oneDNN takes eight times as long for the gradients of a dilated one as for those of a plain one.
    """
    batch, height, width, channels = x.shape
    down, right = -height % dilation, -width % dilation
    phases = F.pad(x, (0, 0, 0, right, 0, down)) if down or right else x
    phases = phases.unflatten(2, (-1, dilation)).unflatten(1, (-1, dilation))  # (B, H', d, W', d, C)
    grid = phases.shape
    phases = phases.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)  # (B d d, H', W', C)
    y = _convolve(phases, weight, bias, 1).unflatten(0, (batch, dilation, dilation)).permute(0, 3, 1, 4, 2, 5)
    return y.reshape(batch, grid[1] * dilation, grid[3] * dilation, channels)[:, :height, :width]
