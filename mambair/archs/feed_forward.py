"""The feed-forward networks of MambaIRv2's layers: perceptrons whose hidden features also see their neighbours.

Shapes: B batch, C channels, F hidden channels, H x W features. Both take and return (B, H, W, C).
"""

from torch import Tensor, nn
from torch.nn import functional as F

from mambair.archs.layers import DepthwiseConv2d, LayerNorm, PaddedLinear, channels_first, channels_last


class _Depthwise(nn.Sequential):
    """A depthwise convolution and GELU, under the names of published weights; (B, F, H, W) -> (B, F, H, W)."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.depthwise_conv = nn.Sequential(DepthwiseConv2d(channels, kernel_size=kernel_size), nn.GELU())


class ConvFFN(nn.Module):
    """MambaIRv2's: the hidden features, plus a depthwise convolution of them."""

    def __init__(self, channels: int, hidden: int, kernel_size: int) -> None:
        super().__init__()
        self.fc1 = PaddedLinear(channels, hidden, bias=True)
        self.dwconv = _Depthwise(hidden, kernel_size)
        self.fc2 = PaddedLinear(hidden, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(self.fc1(x))  # (B, H, W, F)
        local = channels_last(self.dwconv(channels_first(hidden)))
        return self.fc2(hidden + local)


class SpatialGate(nn.Module):
    """Half of the channels, times a depthwise convolution of the other half; (B, H, W, F) -> (B, H, W, F/2)."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        half = channels // 2
        self.norm = LayerNorm(half)
        self.conv = DepthwiseConv2d(half, kernel_size=kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        gated, gate = x.chunk(2, dim=-1)
        return gated * channels_last(self.conv(channels_first(self.norm(gate))))


class GatedConvFFN(nn.Module):
    """MambaIRv2Light's: the hidden features gate each other."""

    def __init__(self, channels: int, hidden: int, kernel_size: int) -> None:
        super().__init__()
        self.fc1 = PaddedLinear(channels, hidden, bias=True)
        self.sg = SpatialGate(hidden, kernel_size)
        self.fc2 = PaddedLinear(hidden // 2, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.sg(F.gelu(self.fc1(x))))
