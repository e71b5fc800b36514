"""The convolutions of a classic block's second half, see triton_local_half.py: 3x3, C -> J -> C, GELU between."""

import torch
from torch import Tensor

from mambair.ops.copies import Copies, Copy
from mambair.ops.launching import Layout
from mambair.ops.rssb.local_key import LocalHalf
from mambair.ops.rssb.parameters import ClassicParameters
from mambair.ops.rssb.rows import padded

_FP32 = torch.float32


class Classic:
    """C -> J -> C by 3x3 convolutions; their biases are added by the kernels behind them."""

    def __init__(self, key: LocalHalf) -> None:
        self.key, rows, kind, parameter = key, key.rows, key.kind, key.parameter
        C, J = key.channels, key.hidden
        self.width, self.hidden_width = padded(C, kind), padded(J, kind)
        self.ones, self.bias, self.out_width = False, True, self.width
        self.kernels = (
            self._weight(J, C, self.hidden_width, self.width), self._weight(C, J, self.width, self.hidden_width),
        )  # fmt: skip
        self.pack = Copies(list(self.kernels), key.device)
        self.unpack = Copies(
            [
                self._gradient(J, C, self.width),
                self._gradient(C, J, self.hidden_width),
            ],
            key.device,
        )
        self.gelu = rows.gelu(J, self.hidden_width, self.hidden_width, True, False, kind, parameter)
        self.gelu_backward = rows.gelu_backward(J, self.hidden_width, self.hidden_width, True, kind, parameter)
        self.sum_gelu = rows.sum_parts(J, self.hidden_width, 1, parameter)
        self.work = Layout(parts=((rows.parts(self.hidden_width), J), _FP32))
        self.forward_kernels = (self.pack.kernel, self.gelu)
        self.backward_kernels = (self.gelu_backward, self.sum_gelu, self.unpack.kernel)

    def _weight(self, rows: int, columns: int, to_rows: int, to_columns: int) -> Copy:
        """(rows, columns, 3, 3) -> (to_rows, 9, to_columns)."""
        shape, steps = (to_rows, 9, to_columns), (columns * 9, 1, 9)
        return Copy(shape, steps, (rows, columns), self.key.parameter, self.key.kind)

    def _gradient(self, rows: int, columns: int, width: int) -> Copy:
        """(..., 9, width) -> (rows, columns, 3, 3)."""
        return Copy((rows, columns, 9), (9 * width, 1, width), (rows, 9), self.key.kind, self.key.parameter)

    def _image(self, tensor: Tensor, width: int) -> Tensor:
        """(rows, width) as (B, width, H, W) in torch.channels_last."""
        key = self.key
        return tensor.view(key.batch, key.height, key.width, width).permute(0, 3, 1, 2)

    def _empty_weight(self, to_channels: int, channels: int) -> Tensor:
        weight = torch.empty(to_channels, 3, 3, channels, dtype=self.key.kind, device=self.key.device)
        return weight.permute(0, 3, 1, 2)

    def forward(self, normed: Tensor, p: ClassicParameters) -> tuple[Tensor, tuple[Tensor, ...]]:
        first = self._empty_weight(self.hidden_width, self.width)
        second = self._empty_weight(self.width, self.hidden_width)
        self.pack(
            [p.first_weight.data_ptr(), p.second_weight.data_ptr()], [first.data_ptr(), second.data_ptr()]
        )  # fmt: skip
        image = self._image(normed, self.width)
        before = torch.conv2d(image, first, None, 1, 1).contiguous(memory_format=torch.channels_last)
        after = torch.empty_like(before)
        self.gelu(before.data_ptr(), p.first_bias.data_ptr(), after.data_ptr())
        u = torch.conv2d(after, second, None, 1, 1).contiguous(memory_format=torch.channels_last)
        return u, (first, second, before, after)

    def backward(
        self, d_u: Tensor, normed: Tensor, p: ClassicParameters, d: ClassicParameters, kept: tuple[Tensor, ...]
    ) -> Tensor:
        """The gradient of normed; fills d but for the last bias."""
        first, second, before, after = kept
        d_after, d_second = _convolution_gradients(self._image(d_u, self.width), after, second)
        d_before = torch.empty_like(before)
        memory, (parts,) = self.work.allocate(self.key.device)
        self.gelu_backward(
            d_after.data_ptr(), before.data_ptr(), p.first_bias.data_ptr(), d_before.data_ptr(), parts
        )  # fmt: skip
        to = d.first_bias.data_ptr()
        self.sum_gelu(parts, to, to, to)
        del memory
        d_normed, d_first = _convolution_gradients(d_before, self._image(normed, self.width), first)
        self.unpack(
            [d_first.data_ptr(), d_second.data_ptr()], [d.first_weight.data_ptr(), d.second_weight.data_ptr()]
        )  # fmt: skip
        return d_normed


def _convolution_gradients(d_y: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Of x and of weight, channels side by side in memory, for a 3x3 convolution of stride 1."""
    ones = (1, 1)
    d_x, d_weight, _ = torch.ops.aten.convolution_backward.default(
        d_y, x, weight, None, ones, ones, ones, False, (0, 0), 1, (True, True, False)
    )
    last = torch.channels_last
    return d_x.contiguous(memory_format=last), d_weight.contiguous(memory_format=last)
