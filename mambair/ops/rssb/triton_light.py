"""The convolutions of a light block's second half, see triton_local_half.py: pointwise and depthwise, GELU between."""

import torch
from torch import Tensor

from mambair.ops.copies import Copies, Copy, transposed
from mambair.ops.depthwise.triton_launch import Convolution, ConvolutionPlan, Image, convolution_plan
from mambair.ops.launching import Layout
from mambair.ops.rssb.local_key import LocalHalf
from mambair.ops.rssb.parameters import LightParameters
from mambair.ops.rssb.rows import padded

_FP32 = torch.float32


def with_ones(channels: int) -> int:
    """Padded so that there is at least one channel more, of ones: a product then adds the bias."""
    return channels // 8 * 8 + 8


class Light:
    """C -> J -> C by matrix products, a depthwise convolution behind each; a channel of ones takes biases in."""

    def __init__(self, key: LocalHalf) -> None:
        self.key, rows, kind, parameter = key, key.rows, key.kind, key.parameter
        C, J = key.channels, key.hidden
        self.width, self.hidden_width = with_ones(C), with_ones(J)
        self.first_width, self.second_width = padded(J, kind), padded(C, kind)
        self.ones, self.bias, self.out_width = True, False, C
        self.first_depthwise = self._depthwise(J, self.first_width, 1)
        self.second_depthwise = self._depthwise(C, self.second_width, 2)
        self.pack = Copies(
            [
                *self._weight(J, C, self.first_width, self.width),
                *self._weight(C, J, self.second_width, self.hidden_width),
                transposed(J, 9, parameter, _FP32),
                transposed(C, 9, parameter, _FP32),
            ],
            key.device,
        )
        self.unpack = Copies(
            [
                Copy((J, 1, C), (1, 0, self.first_width), (J, C), kind, parameter),
                Copy((1, 1, J), (0, 0, 1), (1, J), kind, parameter),
                Copy((C, 1, J), (1, 0, self.second_width), (C, J), kind, parameter),
                Copy((1, 1, C), (0, 0, 1), (1, C), kind, parameter),
            ],
            key.device,
        )
        self.gelu = rows.gelu(J, J, self.hidden_width, False, True, kind, parameter)
        self.gelu_backward = rows.gelu_backward(J, J, self.hidden_width, False, kind, parameter)
        self.small = Layout(first=((9, J), _FP32), second=((9, C), _FP32))
        self.work = Layout(
            first=((self.first_depthwise.work.size,), torch.uint8),
            second=((self.second_depthwise.work.size,), torch.uint8),
        )
        both = (self.first_depthwise, self.second_depthwise)
        self.forward_kernels = (self.pack.kernel, self.gelu, *(each.forward_kernels[1] for each in both))
        backward_kernels = (kernel for each in both for kernel in each.backward_kernels)
        self.backward_kernels = (self.gelu_backward, self.unpack.kernel, *backward_kernels)

    def _depthwise(self, channels: int, pixel: int, dilation: int) -> ConvolutionPlan:
        """On a slice of rows `pixel` apart."""
        key = self.key
        strides = (key.height * key.width * pixel, key.width * pixel, pixel)
        image = Image((key.batch, key.height, key.width, channels), strides, key.kind)
        parameter = key.parameter
        return convolution_plan(Convolution(image, parameter, parameter, dilation, False, pixel, pixel), key.device)

    def _weight(self, rows: int, columns: int, width: int, height: int) -> tuple[Copy, Copy]:
        """(rows, columns) -> transposed, the first `columns` rows of (height, width); bias -> the next, then zeros."""
        source, target = self.key.parameter, self.key.kind
        return (
            Copy((columns, 1, width), (1, 0, columns), (columns, rows), source, target),
            Copy((height - columns, 1, width), (0, 0, 1), (1, rows), source, target),
        )

    def _sides(self, first: Tensor, second: Tensor) -> tuple[int, int, int, int]:
        """Addresses of the weights' parts and of the biases' in the packed matrices."""
        size, C, J = self.key.kind.itemsize, self.key.channels, self.key.hidden
        return (
            first.data_ptr(), first.data_ptr() + C * self.first_width * size,
            second.data_ptr(), second.data_ptr() + J * self.second_width * size,
        )  # fmt: skip

    def _new(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.key.kind, device=self.key.device)

    def forward(self, normed: Tensor, p: LightParameters) -> tuple[Tensor, tuple[Tensor, ...]]:
        key, rows = self.key, len(normed)
        first, second = self._new(self.width, self.first_width), self._new(self.hidden_width, self.second_width)
        small, (first_depthwise, second_depthwise) = self.small.allocate(key.device)
        self.pack(
            [p.first_weight.data_ptr(), p.first_bias.data_ptr(), p.second_weight.data_ptr(), p.second_bias.data_ptr(),
             p.first_depthwise_weight.data_ptr(), p.second_depthwise_weight.data_ptr()],
            [*self._sides(first, second), first_depthwise, second_depthwise],
        )  # fmt: skip
        hidden = torch.mm(normed, first)
        before, after = self._new(rows, key.hidden), self._new(rows, self.hidden_width)
        u = self._new(rows, key.channels)
        self.first_depthwise.convolve(
            hidden.data_ptr(), first_depthwise, p.first_depthwise_bias.data_ptr(), before.data_ptr()
        )
        self.gelu(before.data_ptr(), before.data_ptr(), after.data_ptr())
        wide = torch.mm(after, second)
        self.second_depthwise.convolve(
            wide.data_ptr(), second_depthwise, p.second_depthwise_bias.data_ptr(), u.data_ptr()
        )
        return u, (first, second, small, hidden, before, after, wide)

    def backward(
        self, d_u: Tensor, normed: Tensor, p: LightParameters, d: LightParameters, kept: tuple[Tensor, ...]
    ) -> Tensor:
        """The gradient of normed; fills d."""
        first, second, small, hidden, before, after, wide = kept
        first_depthwise, second_depthwise = (small.data_ptr() + offset for offset in self.small.offsets)
        memory, (first_work, second_work) = self.work.allocate(self.key.device)
        d_wide, d_before, d_hidden = torch.empty_like(wide), torch.empty_like(before), torch.empty_like(hidden)
        self.second_depthwise.gradients(
            d_u.data_ptr(), wide.data_ptr(), second_depthwise, p.second_depthwise_bias.data_ptr(), d_wide.data_ptr(),
            d.second_depthwise_weight.data_ptr(), d.second_depthwise_bias.data_ptr(),
            [second_work + offset for offset in self.second_depthwise.work.offsets],
        )  # fmt: skip
        d_after = torch.mm(d_wide, second.t())
        d_second = torch.mm(after.t(), d_wide)
        self.gelu_backward(d_after.data_ptr(), before.data_ptr(), first_work, d_before.data_ptr(), first_work)
        self.first_depthwise.gradients(
            d_before.data_ptr(), hidden.data_ptr(), first_depthwise, p.first_depthwise_bias.data_ptr(),
            d_hidden.data_ptr(), d.first_depthwise_weight.data_ptr(), d.first_depthwise_bias.data_ptr(),
            [first_work + offset for offset in self.first_depthwise.work.offsets],
        )  # fmt: skip
        del memory
        d_normed = torch.mm(d_hidden, first.t())
        d_first = torch.mm(normed.t(), d_hidden)
        self.unpack(
            self._sides(d_first, d_second),
            [d.first_weight.data_ptr(), d.first_bias.data_ptr(), d.second_weight.data_ptr(), d.second_bias.data_ptr()],
        )
        return d_normed
