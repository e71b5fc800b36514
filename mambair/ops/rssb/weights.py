"""Gradients of a classic CAB's two 3x3 convolutions, C -> J -> C, by the library or by own kernels.

C and J channels, `width` and `hidden_width` as convolutions take them; triton_weights.py has the rest of the legend.
Own are the weights' gradients in half precision, for the widths of the classic network and of the U-Net's first three
levels. The library takes two to three times as long there, and leaves sums in half precision that are still to be
turned and cast; docs/development/kernels.md has the figures.
"""

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from mambair.ops.copies import Copies, Copy
from mambair.ops.launching import Layout, PreparedKernel
from mambair.ops.rssb.local_key import LocalHalf
from mambair.ops.rssb.parameters import ClassicParameters
from mambair.ops.rssb.rows import padded
from mambair.ops.rssb.triton_weights import sum_weights_kernel, weight_parts_kernel

_FP32 = torch.float32
# Between the widths for which own kernels were seen to take less time than the library.
_WIDTHS, _HIDDEN_WIDTHS = range(48, 257), range(16, 65)
# Before it Triton makes no use of tensor cores.
_MIN_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class Tile:
    """What a program takes: wide channels, columns (taps of narrow channels), and pixels at a time.

    programs: of both convolutions together, about. Not taken from the GPU at hand, so that the order of sums, and with
    it every bit, is the same on all.
    """

    channels: int
    columns: int
    pixels: int
    warps: int
    stages: int
    programs: int


# The fastest of 19 for 180 -> 60 channels (H200). It takes 96 KiB of shared memory there, 72 KiB on GPUs that have 99.
_TILE = Tile(channels=256, columns=128, pixels=32, warps=8, stages=4, programs=132)
# Rows of the weights' parts that a program sums; parts of the bias at a time; parts of the weights at a time, at most.
# 4.5 us for the classic network; rows by 16 and the bias by 128 took 5.3 (H200).
_SUM_ROWS, _SUM_BIAS_PARTS, _SUM_PARTS = 4, 512, 16


def choose_tile(width: int, hidden_width: int) -> Tile | None:
    """The tile for convolutions of so many channels; None where the library has to do."""
    return _TILE if width in _WIDTHS and hidden_width in _HIDDEN_WIDTHS else None


class LibraryWeights:
    """The weights' gradients by the library: padded, in the products' type."""

    def __init__(self, key: LocalHalf) -> None:
        C, J = key.channels, key.hidden
        width, hidden_width = padded(C, key.kind), padded(J, key.kind)
        copies = [self._copy(key, J, C, width), self._copy(key, C, J, hidden_width)]
        self.unpack = Copies(copies, key.device)
        self.sum_bias = key.rows.sum_parts(J, hidden_width, 1, key.parameter)
        self.kernels = (self.unpack.kernel, self.sum_bias)

    def _copy(self, key: LocalHalf, rows: int, columns: int, width: int) -> Copy:
        """(..., 9, width) -> (rows, columns, 3, 3)."""
        return Copy((rows, columns, 9), (9 * width, 1, width), (rows, 9), key.kind, key.parameter)

    def __call__(
        self, normed: Tensor, d_before: Tensor, first: Tensor, after: Tensor, d_u: Tensor, second: Tensor,
        bias_parts: int, d: ClassicParameters,
    ) -> None:  # fmt: skip
        """Fills d but for the last bias; all but d channels-last, bias_parts: the address of (parts, J)."""
        d_first, d_second = _weight_gradient(d_before, normed, first), _weight_gradient(d_u, after, second)
        self.unpack(
            [d_first.data_ptr(), d_second.data_ptr()], [d.first_weight.data_ptr(), d.second_weight.data_ptr()]
        )  # fmt: skip
        to = d.first_bias.data_ptr()
        self.sum_bias(bias_parts, to, to, to)


class OwnWeights:
    """The same by own kernels, both convolutions at once: twice the programs for half of the parts."""

    def __init__(self, key: LocalHalf, tile: Tile) -> None:
        C, J, rows = key.channels, key.hidden, key.rows.count
        width, hidden_width = padded(C, key.kind), padded(J, key.kind)
        block = max(16, triton.next_power_of_2(hidden_width))
        block_taps = max(1, tile.columns // block)
        tap_tiles = triton.cdiv(9, block_taps)
        tiles = triton.cdiv(C, tile.channels) * tap_tiles
        share = triton.cdiv(rows, max(1, tile.programs // (2 * tiles)) * tile.pixels) * tile.pixels
        parts = triton.cdiv(rows, share)
        self.work = Layout(parts=((parts, 2, 9, C, block), _FP32))
        sizes = {
            "H": key.height, "W": key.width, "C": C, "CP": width, "JP": hidden_width, "TAPS": triton.cdiv(9, tap_tiles),
            "BC": tile.channels, "BT": block_taps, "BJ": block, "BR": tile.pixels, "num_warps": tile.warps,
            "num_stages": tile.stages,
        }  # fmt: skip
        types = (*(key.kind,) * 4, _FP32)
        self.multiply = PreparedKernel(
            weight_parts_kernel, (tiles, 2, parts), types, (rows, share), key.device, sizes
        )  # fmt: skip
        """normed, d_before, d_u, after, parts."""
        sizes = {
            "C": C, "J": J, "BJ": block, "BR": _SUM_ROWS, "BP": _SUM_BIAS_PARTS,
            "BK": min(_SUM_PARTS, triton.next_power_of_2(parts)), "num_warps": 4,
        }  # fmt: skip
        types, numbers = (_FP32, _FP32, *(key.parameter,) * 3), (parts, key.rows.parts(hidden_width))
        grid = (triton.cdiv(9 * C, _SUM_ROWS), 3)
        self.sum = PreparedKernel(sum_weights_kernel, grid, types, numbers, key.device, sizes)
        """parts, bias_parts, first weight's, second weight's, first bias's."""
        self.kernels = (self.multiply, self.sum)

    def __call__(
        self, normed: Tensor, d_before: Tensor, first: Tensor, after: Tensor, d_u: Tensor, second: Tensor,
        bias_parts: int, d: ClassicParameters,
    ) -> None:  # fmt: skip
        """Fills d but for the last bias; all but d channels-last, bias_parts: the address of (parts, J)."""
        memory, (parts,) = self.work.allocate(normed.device)
        self.multiply(normed.data_ptr(), d_before.data_ptr(), d_u.data_ptr(), after.data_ptr(), parts)
        self.sum(
            parts, bias_parts, d.first_weight.data_ptr(), d.second_weight.data_ptr(), d.first_bias.data_ptr()
        )  # fmt: skip
        del memory


def weight_gradients(key: LocalHalf) -> LibraryWeights | OwnWeights:
    """What finds the weights' gradients of this half."""
    tile = choose_tile(padded(key.channels, key.kind), padded(key.hidden, key.kind))
    if tile is None or key.kind == _FP32:
        return LibraryWeights(key)
    if key.device.type == "cuda" and torch.cuda.get_device_capability(key.device) < _MIN_CAPABILITY:
        return LibraryWeights(key)
    return OwnWeights(key, tile)


def input_gradient(d_y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Of x, channels side by side in memory, for a 3x3 convolution of stride 1."""
    d_x, _, _ = _gradients(d_y, x, weight, (True, False, False))
    return d_x.contiguous(memory_format=torch.channels_last)


def _weight_gradient(d_y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    _, d_weight, _ = _gradients(d_y, x, weight, (False, True, False))
    return d_weight.contiguous(memory_format=torch.channels_last)


def _gradients(d_y: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]) -> tuple[Tensor, ...]:
    ones = (1, 1)
    return torch.ops.aten.convolution_backward.default(
        d_y, x, weight, None, ones, ones, ones, False, (0, 0), 1, wanted
    )  # fmt: skip
