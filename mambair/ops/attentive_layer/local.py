"""What lies between the two products of a feed-forward, see feed_forward.py: a depthwise convolution and GELU.

Shapes: `rows` pixels of all images, F hidden channels, G = F / 2 of a gate's half.
"""

import torch
from torch import Tensor

from mambair.ops.attentive_layer.feed_forward_key import FeedForward, FeedForwardTensors
from mambair.ops.attentive_layer.launches import LayerRows
from mambair.ops.depthwise.triton_launch import Image
from mambair.ops.depthwise.wide_launch import WideConvolution, WidePlan, wide_plan
from mambair.ops.launching import Layout

_FP32 = torch.float32


def _convolution(key: FeedForward, pixel: int) -> WidePlan:
    """Of an image whose pixels lie `pixel` values apart."""
    strides = (key.height * key.width * pixel, key.width * pixel, pixel)
    image = Image((key.batch, key.height, key.width, key.convolved), strides, key.kind)
    return wide_plan(WideConvolution(image, key.parameter, key.parameter, key.size, 1), key.device)


class Gated:
    """u (rows, `stride` >= F) -> GELU(first half of u) conv(LayerNorm(GELU(second half))), (rows, `width` > G)."""

    def __init__(self, key: FeedForward, rows: LayerRows, stride: int, width: int) -> None:
        half, kind, parameter = key.convolved, key.kind, key.parameter
        self.width = width
        self.conv = _convolution(key, half)
        self.norm = rows.gate_norm(half, stride, key.gate_eps, kind, parameter)
        self.product = rows.gate_product(half, stride, width, kind)
        self.product_backward = rows.gate_product_backward(half, stride, width, kind)
        self.norm_backward = rows.gate_norm_backward(half, stride, key.gate_eps, kind, parameter)
        self.sum = rows.sum_parts(half, stride - half, 2, parameter)
        self.work = Layout(
            conv=((self.conv.work.size,), torch.uint8), norm=((rows.parts(stride - half), 2, half), _FP32)
        )
        self.forward_kernels = (self.norm, self.product, *self.conv.forward_kernels)
        self.backward_kernels = (self.product_backward, self.norm_backward, self.sum, *self.conv.backward_kernels)

    def forward(self, u: Tensor, p: FeedForwardTensors, taps: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(the result; what `restored` needs besides u)."""
        assert p.gate_weight is not None and p.gate_bias is not None
        rows, half = len(u), taps.shape[1]
        h, local, y = u.new_empty(rows, half), u.new_empty(rows, half), u.new_empty(rows, self.width)
        self.norm(u.data_ptr(), p.gate_weight.data_ptr(), p.gate_bias.data_ptr(), h.data_ptr())
        self.conv.convolve(h.data_ptr(), taps.data_ptr(), p.conv_bias.data_ptr(), local.data_ptr())
        self.product(u.data_ptr(), local.data_ptr(), y.data_ptr())
        return y, (y, h, local)

    def restored(self, _: Tensor, kept: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """(the result; what `backward` needs besides)."""
        return kept

    def backward(
        self, d_y: Tensor, u: Tensor, p: FeedForwardTensors, d: FeedForwardTensors, taps: Tensor,
        kept: tuple[Tensor, ...], work: int,
    ) -> Tensor:  # fmt: skip
        """The gradient of u; fills d. `work`: the address of that layout."""
        assert p.gate_weight is not None and d.gate_weight is not None and d.gate_bias is not None
        h, local = kept
        conv_work, parts = (work + offset for offset in self.work.offsets)
        d_u, d_local, d_h = torch.empty_like(u), torch.empty_like(local), torch.empty_like(h)
        self.product_backward(d_y.data_ptr(), u.data_ptr(), local.data_ptr(), d_u.data_ptr(), d_local.data_ptr())
        self.conv.gradients(
            d_local.data_ptr(), h.data_ptr(), taps.data_ptr(), d_h.data_ptr(), d.conv_weight.data_ptr(),
            d.conv_bias.data_ptr(), conv_work,
        )  # fmt: skip
        self.norm_backward(d_h.data_ptr(), u.data_ptr(), p.gate_weight.data_ptr(), d_u.data_ptr(), parts)
        self.sum(parts, d.gate_weight.data_ptr(), d.gate_bias.data_ptr(), d.gate_bias.data_ptr())
        return d_u


class Local:
    """u (rows, `stride` >= F) -> GELU(u) + GELU(conv(GELU(u))), (rows, `width` > F)."""

    def __init__(self, key: FeedForward, rows: LayerRows, stride: int, width: int) -> None:
        hidden, kind = key.hidden, key.kind
        self.width = width
        self.conv = _convolution(key, stride)
        self.gelu = rows.gelu(hidden, stride, stride, False, False, kind, key.parameter)
        self.sum = rows.local_sum(hidden, stride, width, kind)
        self.again = rows.local_again(hidden, stride, width, kind)
        self.sum_backward = rows.local_sum_backward(hidden, hidden, hidden, width, False, kind)
        self.gelu_backward = rows.local_sum_backward(hidden, stride, stride, width, True, kind)
        self.work = Layout(conv=((self.conv.work.size,), torch.uint8))
        self.forward_kernels = (self.gelu, self.sum, *self.conv.forward_kernels)
        self.backward_kernels = (self.again, self.sum_backward, self.gelu_backward, *self.conv.backward_kernels)

    def forward(self, u: Tensor, p: FeedForwardTensors, taps: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(the result; what `restored` needs besides u)."""
        rows = len(u)
        g, local, y = torch.empty_like(u), u.new_empty(rows, taps.shape[1]), u.new_empty(rows, self.width)
        self.gelu(u.data_ptr(), u.data_ptr(), g.data_ptr())
        self.conv.convolve(g.data_ptr(), taps.data_ptr(), p.conv_bias.data_ptr(), local.data_ptr())
        self.sum(g.data_ptr(), local.data_ptr(), y.data_ptr())
        return y, (local,)

    def restored(self, u: Tensor, kept: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """(the result; what `backward` needs besides): computed again, in place of two wide tensors in every layer."""
        (local,) = kept
        g, y = torch.empty_like(u), u.new_empty(len(u), self.width)
        self.again(u.data_ptr(), local.data_ptr(), g.data_ptr(), y.data_ptr())
        return y, g, local

    def backward(
        self, d_y: Tensor, u: Tensor, p: FeedForwardTensors, d: FeedForwardTensors, taps: Tensor,
        kept: tuple[Tensor, ...], work: int,
    ) -> Tensor:  # fmt: skip
        """The gradient of u; fills d. `work`: the address of that layout."""
        g, local = kept
        d_u, d_local, d_g = torch.empty_like(u), torch.empty_like(local), torch.empty_like(local)
        self.sum_backward(d_y.data_ptr(), d_y.data_ptr(), local.data_ptr(), d_local.data_ptr())
        self.conv.gradients(
            d_local.data_ptr(), g.data_ptr(), taps.data_ptr(), d_g.data_ptr(), d.conv_weight.data_ptr(),
            d.conv_bias.data_ptr(), work,
        )  # fmt: skip
        self.gelu_backward(d_y.data_ptr(), d_g.data_ptr(), u.data_ptr(), d_u.data_ptr())
        return d_u
