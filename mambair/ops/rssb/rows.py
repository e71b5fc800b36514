"""Grids and tiles of the kernels that go pixel by pixel; triton_rows.py and triton_attention.py have the legend."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton

from mambair.ops.launching import PreparedKernel
from mambair.ops.rssb import triton_attention as attention
from mambair.ops.rssb import triton_rows as rows

Dtype = torch.dtype
Types = Sequence[torch.dtype]
Constants = dict[str, Any]

# Values of a program's tile, 16 a thread; but one row where it has at least as many as a warp takes: few warps need to
# wait for each other. The gate of a classic image of 256x256 takes 75 instead of 79 us so, and 85 with 2048 (H200).
_TILE, _WARP_VALUES = 1024, 512
# Kernels that sum over pixels hold a tile of each sum besides: in small programs, more of which fit beside each other,
# those took 21 instead of 35 us on an H200.
_SUM_TILE, _SUM_WARPS = 1024, 2
# Channels for which the LayerNorm's backward pass takes one warp: 22 instead of 24 us for a classic block, 20 instead
# of 23 for the U-Net's second level. With fewer it would take 44 instead of 37 (H200), with 1024 it would spill.
_ONE_WARP = range(65, 257)
# Parts and channels at a time of the kernel that sums parts, and its warps: 2.4 us for 1024 parts instead of the 4.5 of
# 128 and 32 (H200). Eight channels are 32 bytes, the least that memory gives; so few make many programs.
_PARTS, _CHANNELS, _PARTS_WARPS = 512, 8, 8
# Of the channel attention's sums and products, and their warps.
_ATTENTION_TILE, _ATTENTION_WARPS = 2048, 4
# At most, of the program that adds an image's shares forward. Of a classic image of 256x256 it takes 7.4 us instead of
# 13.9 so (H200); backward, where it adds two sums, nothing was gained.
_MAX_SHARES_TILE = 4 * _ATTENTION_TILE
# Programs that sum over all pixels, about: four a multiprocessor of a large GPU. Not taken from the GPU at hand, so
# that the order of sums, and with it every bit, is the same on all.
_PROGRAMS = 528
# Of the gate's and the LayerNorm's backward passes, twice as many: of the gate 31 instead of 47 us for a classic block,
# 28 instead of 40 for a light one, whose LayerNorm takes 25 instead of 30 (H200).
MANY_PROGRAMS = 2 * _PROGRAMS
# Shares that the channel attention cuts all images into, at most. But the sums of an image, which one program adds, are
# no more than so many values, and a share has as many as pay for a program: the fastest in all shapes of
# docs/development/kernels.md, "Sums over parts".
_SHARES, _SUMMED_VALUES, _SHARE_VALUES = 528, 65536, 16384
_FP32 = torch.float32


def padded(channels: int, dtype: torch.dtype) -> int:
    """Channels as matrix products like them: in half precision cuBLAS and cuDNN copy what does not come in eights."""
    return channels if dtype == _FP32 else -(-channels // 8) * 8


def _tile(width: int, values: int, warps: int) -> dict[str, int]:
    """Rows and channels of a program's tile of so many values, a row at least."""
    block = triton.next_power_of_2(width)
    return {"BR": max(1, values // block), "BC": block, "num_warps": warps}


def _shares_tile(shares: int, block: int) -> dict[str, int]:
    """Of the program that adds an image's shares, each `block` channels: about a quarter of them at a time."""
    quarter = triton.next_power_of_2(shares * block) // 4
    values = min(max(quarter, _ATTENTION_TILE), _MAX_SHARES_TILE)
    return {"BK": max(1, values // block), "num_warps": values // _WARP_VALUES}


@dataclass(frozen=True)
class Rows:
    """All pixels of `images` images of `pixels` pixels each, and where their kernels run."""

    images: int
    pixels: int
    device: torch.device

    @property
    def count(self) -> int:
        """All of them."""
        return self.images * self.pixels

    def each(
        self, kernel: Any, types: Types, constants: Constants, width: int, numbers: tuple[int, ...] = ()
    ) -> PreparedKernel:
        """A kernel of which each program takes one tile."""
        block = triton.next_power_of_2(width)
        values = _TILE if block < _WARP_VALUES else block
        options = constants | _tile(width, values, max(1, values // _WARP_VALUES))
        grid = (triton.cdiv(self.count, options["BR"]),)
        return PreparedKernel(kernel, grid, types, (self.count, *numbers), self.device, options)

    def _share(self, width: int, programs: int) -> int:
        step = _tile(width, _SUM_TILE, _SUM_WARPS)["BR"]
        return triton.cdiv(self.count, programs * step) * step

    def parts(self, width: int, programs: int = _PROGRAMS) -> int:
        """How many parts `summing` kernels leave."""
        return triton.cdiv(self.count, self._share(width, programs))

    def summing(
        self, kernel: Any, types: Types, constants: Constants, width: int, programs: int = _PROGRAMS,
        warps: int = _SUM_WARPS,
    ) -> PreparedKernel:  # fmt: skip
        """A kernel of which each program sums over a share."""
        options = constants | _tile(width, _SUM_TILE, warps)
        numbers = (self.count, self._share(width, programs))
        return PreparedKernel(kernel, (self.parts(width, programs),), types, numbers, self.device, options)

    def norm(
        self, channels: int, width: int, eps: float, ones: bool, x: Dtype, parameter: Dtype, y: Dtype
    ) -> PreparedKernel:
        """x, weight, bias, y -> LayerNorm."""
        constants = {"C": channels, "CP": width, "EPS": eps, "ONES": ones}
        return self.each(rows.norm_kernel, (x, parameter, parameter, y), constants, width)

    def norm_backward(
        self, channels: int, width: int, eps: float, d_y: Dtype, x: Dtype, parameter: Dtype, d_out: Dtype | None
    ) -> PreparedKernel:
        """d_y, x, weight, d_out, skip, d_x, parts. d_out: None without a skip connection; any addresses then.

        It leaves parts for MANY_PROGRAMS.
        """
        constants = {"C": channels, "CP": width, "EPS": eps, "SKIP": d_out is not None}
        types = (d_y, x, parameter, d_out or d_y, parameter, x, _FP32)
        warps = 1 if width in _ONE_WARP else _SUM_WARPS
        return self.summing(rows.norm_backward_kernel, types, constants, width, MANY_PROGRAMS, warps)

    def gate(
        self, channels: int, width: int, z_stride: int, parts: int, eps: float, kind: Dtype, parameter: Dtype,
        keep: bool,
    ) -> PreparedKernel:  # fmt: skip
        """parts, z, weight, bias, y, gated. keep: whether y is stored; it may be any address where not."""
        constants = {"C": channels, "CP": width, "ZS": z_stride, "PARTS": parts, "EPS": eps, "KEEP": keep}
        types = (kind, kind, parameter, parameter, kind, kind)
        return self.each(rows.gate_kernel, types, constants, width, (self.count * channels,))

    def gate_backward(
        self, channels: int, width: int, z_stride: int, z_width: int, eps: float, kind: Dtype, parameter: Dtype
    ) -> PreparedKernel:
        """d_gated, y, z, weight, bias, d_y, d_z, parts; it leaves parts for MANY_PROGRAMS."""
        constants = {"C": channels, "CP": width, "ZS": z_stride, "ZW": z_width, "EPS": eps}
        types = (kind, kind, kind, parameter, parameter, kind, kind, _FP32)
        return self.summing(rows.gate_backward_kernel, types, constants, max(width, z_width), MANY_PROGRAMS)

    def gelu(
        self, channels: int, stride: int, width: int, bias: bool, ones: bool, kind: Dtype, parameter: Dtype
    ) -> PreparedKernel:
        """u, bias, g."""
        constants = {"C": channels, "US": stride, "CP": width, "BIAS": bias, "ONES": ones}
        return self.each(rows.gelu_kernel, (kind, parameter, kind), constants, width)

    def gelu_backward(
        self, channels: int, stride: int, width: int, bias: bool, kind: Dtype, parameter: Dtype
    ) -> PreparedKernel:
        """d_g, u, bias, d_u, parts."""
        constants = {"C": channels, "US": stride, "CP": width, "BIAS": bias}
        types = (kind, kind, parameter, kind, _FP32)
        return self.summing(rows.gelu_backward_kernel, types, constants, max(width, stride))

    def add_skip(
        self, channels: int, width: int, scale: str, bias: bool, kind: Dtype, scale_type: Dtype, parameter: Dtype,
        x: Dtype, out: Dtype,
    ) -> PreparedKernel:  # fmt: skip
        """branch, scale, bias, x, skip, out."""
        constants = {"C": channels, "CP": width, "SCALE": scale, "BIAS": bias}
        types = (kind, scale_type, parameter, x, parameter, out)
        return self.each(rows.add_skip_kernel, types, constants, width, (self.pixels,))

    def to_branch(
        self, channels: int, width: int, scale: str, d_out: Dtype, scale_type: Dtype, kind: Dtype
    ) -> PreparedKernel:
        """d_out, scale, shift, d_branch."""
        constants = {"C": channels, "CP": width, "SCALE": scale}
        types = (d_out, scale_type, _FP32, kind)
        return self.each(rows.to_branch_kernel, types, constants, width, (self.pixels,))

    def sum_parts(
        self, channels: int, width: int, count: int, parameter: Dtype, stride: int | None = None,
        programs: int = _PROGRAMS,
    ) -> PreparedKernel:  # fmt: skip
        """parts, then `count` sums of three, of parts that have `stride`; the others may be any address."""
        tile = {"BP": _PARTS, "BC": _CHANNELS, "num_warps": _PARTS_WARPS, "num_stages": 1}
        options = {"C": channels, "ROWS": stride or count, **tile}
        grid = (triton.cdiv(channels, _CHANNELS), count)
        types = (_FP32, parameter, parameter, parameter)
        return PreparedKernel(rows.sum_parts_kernel, grid, types, (self.parts(width, programs),), self.device, options)


def _share_of(rows: Rows, step: int, block: int) -> int:
    """Pixels of an image, in steps, that a program of the channel attention sums; `block` values each."""
    shares = min(_SHARES // rows.images, _SUMMED_VALUES // block, rows.pixels * block // _SHARE_VALUES)
    return triton.cdiv(rows.pixels, max(1, shares) * step) * step


class Attention:
    """The launches of the channel attention on u (rows, C), `width` apart, plus bias if there is one."""

    def __init__(
        self, pixels: Rows, channels: int, squeezed: int, width: int, bias: bool, kind: Dtype, parameter: Dtype,
        d_out: Dtype,
    ) -> None:  # fmt: skip
        tile = _tile(width, _ATTENTION_TILE, _ATTENTION_WARPS)
        share = _share_of(pixels, tile["BR"], tile["BC"])
        chunks = triton.cdiv(pixels.pixels, share)
        images, device = pixels.images, pixels.device
        self.sums = (images, chunks, channels), _FP32
        self.gradient_sums_shape = (images, chunks, 2, channels), _FP32
        self.per_channel = (images, channels), _FP32
        self.per_squeezed = (images, squeezed), _FP32
        grid, numbers = (chunks, images), (pixels.pixels, share)
        sizes = {"C": channels, "CP": width}
        flag = {"BIAS": bias}
        self.sum = PreparedKernel(attention.sums_kernel, grid, (kind, _FP32), numbers, device, sizes | tile)
        """u, sums."""
        self.sum_gradients = PreparedKernel(
            attention.gradient_sums_kernel, grid, (d_out, kind, parameter, _FP32), numbers, device, sizes | flag | tile
        )
        """d_out, u, bias, sums."""
        block = triton.next_power_of_2(channels)
        small = {"C": channels, "S": squeezed, "BS": triton.next_power_of_2(squeezed), "num_warps": _ATTENTION_WARPS}
        sizes = small | {"BC": block, "BK": max(1, _ATTENTION_TILE // block)}
        weights = (parameter,) * 4
        self.weigh = PreparedKernel(
            attention.attention_kernel, (images,), (_FP32, parameter, *weights, _FP32, _FP32, _FP32),
            (chunks, pixels.pixels), device, sizes | flag | _shares_tile(chunks, block),
        )  # fmt: skip
        """sums, bias, w1, b1, w2, b2, means, hidden, scale."""
        self.weigh_backward = PreparedKernel(
            attention.attention_backward_kernel, (images,), (_FP32, parameter, parameter, *(_FP32,) * 6),
            (chunks, pixels.pixels), device, sizes,
        )  # fmt: skip
        """sums, w1, w2, hidden, scale, d_before, d_hidden, shift, d_bias of each image."""
        self.sum_weights = PreparedKernel(
            attention.attention_weights_kernel, (triton.cdiv(channels, 64),), (*(_FP32,) * 5, *weights, parameter),
            (images,), device, small | flag | {"BC": 64},
        )  # fmt: skip
        """d_before, d_hidden, means, hidden, d_bias of each image, d_w1, d_b1, d_w2, d_b2, d_bias."""
        self.forward_kernels = (self.sum, self.weigh)
        self.backward_kernels = (self.sum_gradients, self.weigh_backward, self.sum_weights)
