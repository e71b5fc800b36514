"""The convolutions of a classic block's second half, see triton_local_half.py: 3x3, C -> J -> C, GELU between."""

import torch
from torch import Tensor

from mambair.ops.copies import Copies, Copy
from mambair.ops.launching import Layout
from mambair.ops.rssb.local_key import LocalHalf
from mambair.ops.rssb.parameters import ClassicParameters
from mambair.ops.rssb.rows import padded
from mambair.ops.rssb.weights import input_gradient, weight_gradients

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
        self.gelu = rows.gelu(J, self.hidden_width, self.hidden_width, True, False, kind, parameter)
        self.gelu_backward = rows.gelu_backward(J, self.hidden_width, self.hidden_width, True, kind, parameter)
        self.weights = weight_gradients(key)
        self.work = Layout(bias_parts=((rows.parts(self.hidden_width), J), _FP32))
        self.forward_kernels = (self.pack.kernel, self.gelu)
        self.backward_kernels = (self.gelu_backward, *self.weights.kernels)

    def _weight(self, rows: int, columns: int, to_rows: int, to_columns: int) -> Copy:
        """(rows, columns, 3, 3) -> (to_rows, 9, to_columns)."""
        shape, steps = (to_rows, 9, to_columns), (columns * 9, 1, 9)
        return Copy(shape, steps, (rows, columns), self.key.parameter, self.key.kind)

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
        normed, d_u = self._image(normed, self.width), self._image(d_u, self.width)
        d_after = input_gradient(d_u, after, second)
        d_before = torch.empty_like(before)
        memory, (bias_parts,) = self.work.allocate(self.key.device)
        self.gelu_backward(
            d_after.data_ptr(), before.data_ptr(), p.first_bias.data_ptr(), d_before.data_ptr(), bias_parts
        )  # fmt: skip
        d_normed = input_gradient(d_before, normed, first)
        self.weights(normed, d_before, first, after, d_u, second, bias_parts, d)
        del memory
        return d_normed
