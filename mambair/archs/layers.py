"""Convolutions and attention used by the blocks.

Shapes: B batch, C channels, H x W features. Blocks hand features around as (B, H, W, C), contiguous; the
modules here take and return (B, C, H, W) in torch.channels_last memory format, so that going from one to the
other is a view (`channels_first`, `channels_last`) and nothing is ever copied.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mambair.ops import depthwise_conv, layer_norm

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
        if not torch.compiler.is_exporting() and padded == size:  # an exported file is for other sizes too
            continue
        period = max(2 * (size - 1), 1)  # a single row repeats itself
        index = modulo(torch.arange(padded, device=x.device), period)
        x = x.index_select(dim, torch.minimum(index, period - index))
    return x


def reflect_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Grow (B, C, H, W) by reflection until H and W are multiples of `multiple`."""
    height, width = (next_multiple(size, multiple) for size in x.shape[2:])
    return reflect_pad(x, height, width)


def mirror_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Grow (B, C, H, W) at the bottom and the right by reflection that repeats the border's pixels, to multiples."""
    for dim in (2, 3):
        size = x.shape[dim]
        padded = next_multiple(size, multiple)
        if torch.compiler.is_exporting() or padded > size:
            index = modulo(torch.arange(padded, device=x.device), 2 * size)
            x = x.index_select(dim, torch.minimum(index, 2 * size - 1 - index))
    return x


def next_multiple(size: int, multiple: int) -> int:
    """`size`, rounded up; without a negative number, which ONNX's division would round the other way."""
    return (size + multiple - 1) // multiple * multiple


def modulo(index: Tensor, period: int) -> Tensor:
    """index % period; the period as a tensor, since PyTorch's exporter to ONNX takes no open size there."""
    return index % torch.full((), period, device=index.device)


def channel_padding(x: Tensor, channels: int) -> int:
    """How many zero channels a matrix product or convolution over `channels` is better given on this input's device.

    Half-precision kernels of cuBLAS and cuDNN take channels in eights: others run at half the speed or copy their input
    into padded memory first.
    """
    if not x.is_cuda or not (x.dtype in HALF or torch.is_autocast_enabled("cuda")):
        return 0
    return -channels % 8


class LayerNorm(nn.LayerNorm):
    """A LayerNorm over channels, (..., C), by the operator `mambair.ops.layer_norm`."""

    def __init__(self, channels: int, for_products: bool = True) -> None:
        super().__init__(channels)
        self.for_products = for_products

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        return layer_norm(x, self.weight, self.bias, self.eps, self.for_products)


class PaddedLinear(nn.Linear):
    """A Linear layer that pads channels as `channel_padding` says."""

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bias)

    def forward(self, x: Tensor) -> Tensor:
        more_in, more_out = (channel_padding(x, size) for size in (self.in_features, self.out_features))
        if more_in == more_out == 0:
            return super().forward(x)
        weight = F.pad(self.weight, (0, more_in, 0, more_out))
        bias = None if self.bias is None else F.pad(self.bias, (0, more_out))
        return F.linear(F.pad(x, (0, more_in)), weight, bias)[..., : self.out_features]


class PaddedPointwise(nn.Conv2d):
    """A 1x1 convolution that pads channels as `channel_padding` says, as a matrix product then."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        more_in, more_out = (channel_padding(x, size) for size in (self.in_channels, self.out_channels))
        if more_in == more_out == 0:
            return super().forward(x)
        assert self.bias is not None
        weight = F.pad(self.weight[:, :, 0, 0], (0, more_in, 0, more_out))
        x = F.linear(F.pad(channels_last(x), (0, more_in)), weight, F.pad(self.bias, (0, more_out)))
        return channels_first(x[..., : self.out_channels])


class PaddedConv2d(nn.Conv2d):
    """A 3x3 convolution of stride 1 that pads channels as `channel_padding` says."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        more_in, more_out = (channel_padding(x, size) for size in (self.in_channels, self.out_channels))
        if more_in == more_out == 0:
            return super().forward(x)
        assert self.bias is not None
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, more_in, 0, more_out))
        x = F.pad(x, (0, 0, 0, 0, 0, more_in))
        x = F.conv2d(x, weight, F.pad(self.bias, (0, more_out)), padding=1)
        # With channels as the last dimension, since a cut's gradient comes contiguous: with channels as the first it is
        # turned for that, and turned back for the convolution.
        return channels_first(channels_last(x)[..., : self.out_channels])


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution, and SiLU if `silu`, by the operator `mambair.ops.depthwise_conv`.

    (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int, dilation: int = 1, silu: bool = False, kernel_size: int = 3) -> None:
        padding = kernel_size // 2 * dilation
        super().__init__(channels, channels, kernel_size, padding=padding, dilation=dilation, groups=channels)
        self.silu = silu

    def forward(self, x: Tensor) -> Tensor:
        dilation = self.dilation[0]
        return channels_first(depthwise_conv(channels_last(x), self.weight, self.bias, dilation, self.silu))


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
            PaddedConv2d(channels, hidden),
            nn.GELU(),
            PaddedConv2d(hidden, channels),
            ChannelAttention(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.cab(x)


class LightCAB(nn.Module):
    """The CAB of the light networks: pointwise bottleneck of ratio 2, depthwise and dilated depthwise convolutions.

    (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.cab = nn.Sequential(
            PaddedPointwise(channels, hidden),
            DepthwiseConv2d(hidden),
            nn.GELU(),
            PaddedPointwise(hidden, channels),
            DepthwiseConv2d(channels, dilation=2),
            ChannelAttention(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.cab(x)


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
        return PaddedConv2d(channels, channels)
    assert kind == "3conv", kind
    return nn.Sequential(
        nn.Conv2d(channels, channels // 4, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(channels // 4, channels // 4, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(channels // 4, channels, 3, padding=1),
    )
