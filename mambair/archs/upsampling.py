"""Heads that enlarge features, and the U-Net's changes of resolution. All take and return (B, C, H, W)."""

import math

from torch import Tensor, nn


class Upsample(nn.Sequential):
    """Enlarge by `scale` (a power of two, or 3) in steps of convolution and pixel shuffle, C channels throughout."""

    def __init__(self, scale: int, channels: int) -> None:
        layers: list[nn.Module] = []
        factors = [3] if scale == 3 else [2] * int(math.log2(scale))
        assert math.prod(factors) == scale, scale
        for factor in factors:
            layers += [nn.Conv2d(channels, factor * factor * channels, 3, padding=1), nn.PixelShuffle(factor)]
        super().__init__(*layers)


class UpsampleOneStep(nn.Sequential):
    """Enlarge by `scale` straight to the image: one convolution and one pixel shuffle (the light networks' head)."""

    def __init__(self, scale: int, channels: int, out_channels: int) -> None:
        super().__init__(nn.Conv2d(channels, scale * scale * out_channels, 3, padding=1), nn.PixelShuffle(scale))


class Downscale(nn.Module):
    """Halve H and W, double C (pixel unshuffle)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Upscale(nn.Module):
    """Double H and W, halve C (pixel shuffle)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels * 2, 3, padding=1, bias=False), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)
