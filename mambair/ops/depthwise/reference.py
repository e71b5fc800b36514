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
    image = x.permute(0, 3, 1, 2)
    padding = weight.shape[2] // 2 * dilation
    y = F.conv2d(image, weight, bias, padding=padding, dilation=dilation, groups=x.shape[3])
    return (F.silu(y) if silu else y).permute(0, 2, 3, 1).contiguous()
