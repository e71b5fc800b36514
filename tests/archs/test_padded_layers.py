"""Layers that pad channels for a GPU's half-precision kernels compute what plain ones do."""

import pytest
import torch
from torch import Tensor, nn

from mambair.archs import layers
from mambair.archs.layers import PaddedConv2d, PaddedLinear, PaddedPointwise, channels_first

LAYERS = {
    "linear": lambda: PaddedLinear(5, 11),
    "3x3": lambda: PaddedConv2d(5, 11),
    "1x1": lambda: PaddedPointwise(5, 11),
}


def outputs(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """The result, and the gradients of the input and all parameters for one fixed direction."""
    x = x.clone().requires_grad_()
    y = layer(x) if isinstance(layer, nn.Linear) else layer(channels_first(x)).permute(0, 2, 3, 1)
    direction = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return [y, *torch.autograd.grad((y * direction).sum(), [x, *layer.parameters()])]


@pytest.mark.parametrize("name", LAYERS)
def test_padding_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    x = torch.randn(2, 6, 7, 5, dtype=torch.float64)
    expected = outputs(layer, x)
    asked = []

    def pads(x: Tensor, channels: int) -> int:
        asked.append(channels)
        return -channels % 8

    monkeypatch.setattr(layers, "channel_padding", pads)
    padded = outputs(layer, x)
    assert asked == [5, 11]
    for found, wanted in zip(padded, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13)


def test_gradients_of_convolutions_keep_channels_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise every convolution's gradient is turned twice."""
    arrived, convolve = [], torch.nn.functional.conv2d

    def watched(*arguments, **options) -> Tensor:
        y = convolve(*arguments, **options)
        y.register_hook(lambda gradient: arrived.append(gradient.is_contiguous(memory_format=torch.channels_last)))
        return y

    monkeypatch.setattr(torch.nn.functional, "conv2d", watched)
    monkeypatch.setattr(layers, "channel_padding", lambda x, channels: -channels % 8)
    outputs(PaddedConv2d(5, 11), torch.randn(2, 6, 7, 5))
    assert arrived == [True]
