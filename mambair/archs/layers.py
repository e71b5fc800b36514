"""Convolutions and attention used by the blocks.

Shapes: B batch, C channels, H x W features. Blocks hand features around as (B, H, W, C), contiguous; the
modules here take and return (B, C, H, W) in torch.channels_last memory format, so that going from one to the
other is a view (`channels_first`, `channels_last`) and nothing is ever copied.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mambair.ops import depthwise_conv

HALF = (torch.float16, torch.bfloat16)


def channels_first(x: Tensor) -> Tensor:
    """View (B, H, W, C) as (B, C, H, W)."""
    return x.permute(0, 3, 1, 2)


def channels_last(x: Tensor) -> Tensor:
    """View (B, C, H, W) as (B, H, W, C)."""
    return x.permute(0, 2, 3, 1)


def reflect_pad(x: Tensor, height: int, width: int) -> Tensor:
    """Grow (B, C, H, W) at the bottom and the right to (B, C, height, width) by reflection.

    Unlike F.pad it also takes images smaller than the padding: the reflection goes back and forth.
    """
    for dim, padded in ((2, height), (3, width)):
        size = x.shape[dim]
        if padded == size:
            continue
        period = max(2 * (size - 1), 1)  # a single row repeats itself
        index = torch.arange(padded, device=x.device) % period
        x = x.index_select(dim, torch.minimum(index, period - index) if size > 1 else index)
    return x


def reflect_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Grow (B, C, H, W) by reflection until H and W are multiples of `multiple`."""
    height, width = (-(-size // multiple) * multiple for size in x.shape[2:])
    return reflect_pad(x, height, width)


def channel_padding(x: Tensor, channels: int) -> int:
    """How many zero channels a matrix product or convolution over `channels` is better given on this input's device.

    Half-precision kernels of cuBLAS and cuDNN take channels in eights: others run at half the speed or copy their input
    into padded memory first.
    """
    if not x.is_cuda or not (x.dtype in HALF or torch.is_autocast_enabled("cuda")):
        return 0
    return -channels % 8


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """layer(x) for a layer without bias, with channels padded as `channel_padding` says: (..., C) -> (..., C')."""
    more_in, more_out = (channel_padding(x, size) for size in (layer.in_features, layer.out_features))
    if more_in == more_out == 0:
        return layer(x)
    return F.linear(F.pad(x, (0, more_in)), F.pad(layer.weight, (0, more_in, 0, more_out)))[..., : layer.out_features]


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """conv(x) with channels padded as `channel_padding` says: the result may end in channels of zeros, and so may x."""
    more_out = channel_padding(x, conv.out_channels)
    more_in = channel_padding(x, conv.in_channels)
    if more_in == more_out == 0:
        return conv(x)
    x = F.pad(x, (0, 0, 0, 0, 0, conv.in_channels + more_in - x.shape[1]))
    weight = F.pad(conv.weight, (0, 0, 0, 0, 0, more_in, 0, more_out))
    return F.conv2d(x, weight, F.pad(conv.bias, (0, more_out)), padding=conv.padding)


def depthwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a depthwise 3x3 `conv` to (B, C, H, W) through the operator, which is faster than PyTorch's on GPUs."""
    return channels_first(depthwise_conv(channels_last(x), conv.weight, conv.bias, dilation=conv.dilation[0]))


class ChannelAttention(nn.Module):
    """Squeeze-and-excitation: weights each channel by a function of all channels' means.

    (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int, squeeze_factor: int = 30) -> None:
        super().__init__()
        squeezed = max(channels // squeeze_factor, 1)
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attention(x)


class CAB(nn.Module):
    """The local part of the RSSB (the paper, Eq. 6): a convolution bottleneck, then channel attention.

    `compress_ratio` is the paper's gamma. (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int, compress_ratio: int = 3) -> None:
        super().__init__()
        hidden = channels // compress_ratio
        self.cab = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(hidden, channels, 3, padding=1),
            ChannelAttention(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        squeeze, act, expand, attention = self.cab
        return attention(convolve(expand, act(convolve(squeeze, x)))[:, : x.shape[1]])


class LightCAB(nn.Module):
    """The CAB of the light networks: pointwise bottleneck of ratio 2, depthwise and dilated depthwise convolutions.

    (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.cab = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.GELU(),
            nn.Conv2d(hidden, channels, 1),
            nn.Conv2d(channels, channels, 3, padding=2, dilation=2, groups=channels),
            ChannelAttention(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        squeeze, first, act, expand, second, attention = self.cab
        return attention(depthwise(second, expand(act(depthwise(first, squeeze(x))))))


class MLP(nn.Module):
    """A Transformer's two-layer perceptron in the CAB's place (the paper, Table 1, row 3).

    (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int, ratio: int = 2) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, ratio * channels)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(ratio * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return channels_first(self.fc2(self.act(self.fc1(channels_last(x)))))


def residual_conv(channels: int, kind: str) -> nn.Module:
    """The convolution that ends a residual group: '1conv', or '3conv', a bottleneck that saves parameters."""
    if kind == "1conv":
        return nn.Conv2d(channels, channels, 3, padding=1)
    assert kind == "3conv", kind
    return nn.Sequential(
        nn.Conv2d(channels, channels // 4, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(channels // 4, channels // 4, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(channels // 4, channels, 3, padding=1),
    )
