"""Buffers and launches of the kernels of window attention; triton_kernels.py has the legend of the shapes."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from mambair.ops.launching import PreparedKernel
from mambair.ops.ss2d.triton_launch import LOG2_E, product_precision
from mambair.ops.window_attention import triton_kernels as kernels
from mambair.ops.window_attention.triton_tiles import Tiles, block_warps, padded_channels, padded_pixels, tiles_for

# Programs that the sums over windows are spread over: two a multiprocessor of a large GPU. With 512 the sums of a light
# network took as long, and adding up twice the shares longer (H200). Not as many as suit the GPU at hand, so that the
# order of the sums is the same on all.
_SUM_PROGRAMS = 256
_FP32 = torch.float32


@dataclass(frozen=True)
class Windows:
    """One call's sizes; qkv and gradients are contiguous."""

    batch: int
    height: int
    width: int
    heads: int
    channels: int
    window_size: int
    shift: int
    scaled_by: int
    """Channels whose number the scores are scaled by: those of a head that are not padding."""

    @property
    def count(self) -> int:
        return self.batch * (self.height // self.window_size) * (self.width // self.window_size)

    @property
    def pixels(self) -> int:
        return self.window_size**2

    @property
    def scale(self) -> float:
        """Scores are kept in units of log2(e)."""
        return self.scaled_by**-0.5 * LOG2_E

    def places(self) -> tuple[int, int, int, int, float]:
        """Arguments that tell a kernel where things lie."""
        return self.height, self.width, self.heads * self.channels, self.shift, self.scale


def sizes_of(qkv: Tensor, bias_table: Tensor, window_size: int, shift: int) -> Windows:
    batch, height, width, channels = qkv.shape
    heads = bias_table.shape[1]
    head = channels // (3 * heads)
    return Windows(batch, height, width, heads, head, window_size, shift, head)


class WindowPlan:
    """The launches for qkv of type `kind` and a table of type `parameter`."""

    def __init__(
        self, sizes: Windows, kind: torch.dtype, parameter: torch.dtype, device: torch.device, tiles: Tiles
    ) -> None:
        self.sizes, self._kind, self._parameter, self._device = sizes, kind, parameter, device
        self._bias_type = _FP32 if kind == _FP32 else torch.float16
        self._lengths = {"w": sizes.window_size, "L": sizes.pixels, "BL": padded_pixels(sizes.window_size)}
        self._options: dict[str, Any] = self._lengths | {
            "d": sizes.channels, "BD": padded_channels(sizes.channels), "SHIFTED": sizes.shift > 0,
            "PRECISION": product_precision(kind, device), "num_stages": 1,
        }  # fmt: skip
        self._prepare_forward(tiles.forward)
        self._prepare_gradients(tiles.gradients)

    def _prepare_forward(self, block: int) -> None:
        sizes, kind = self.sizes, self._kind
        parts, options = self._cut(block)
        self._spread = self._prepare(
            kernels.spread_bias_kernel, (sizes.heads, sizes.pixels), (self._parameter, self._bias_type),
            (sizes.scaled_by**0.5,), **self._lengths, num_warps=4,
        )  # fmt: skip
        self._attend, self._attend_and_keep = (
            self._prepare(
                kernels.attention_kernel, (sizes.heads * sizes.count, parts), (kind, self._bias_type, kind, _FP32),
                sizes.places(), KEEP=keep, **options,
            )
            for keep in (False, True)
        )  # fmt: skip
        self.forward_kernels = (self._spread, self._attend_and_keep)

    def _prepare_gradients(self, block: int) -> None:
        sizes, kind, places = self.sizes, self._kind, self.sizes.places()
        parts, options = self._cut(block)
        grid = sizes.heads * sizes.count, parts
        every = (kind, self._bias_type, kind, kind, _FP32, _FP32, kind)
        without_y = (kind, self._bias_type, kind, _FP32, _FP32)
        self._of_queries = self._prepare(kernels.query_gradients_kernel, grid, every, places, **options)
        self._of_keys = self._prepare(kernels.key_gradients_kernel, grid, (*without_y, kind), places, **options)
        pairs = parts**2
        share = triton.cdiv(sizes.count, max(1, _SUM_PROGRAMS // (sizes.heads * pairs)))
        self._shares = triton.cdiv(sizes.count, share)
        self._sum = self._prepare(
            kernels.score_sums_kernel, (sizes.heads, pairs, self._shares), (*without_y, _FP32),
            (*places, sizes.count, share), **options,
        )  # fmt: skip
        self._table = self._prepare(
            kernels.table_gradient_kernel, (sizes.heads, 2 * sizes.window_size - 1), (_FP32, self._parameter),
            (self._shares,), w=sizes.window_size, L=sizes.pixels, BW=triton.next_power_of_2(sizes.window_size),
            num_warps=8,
        )  # fmt: skip
        self.backward_kernels = (self._of_queries, self._of_keys, self._sum, self._table)

    def _cut(self, block: int) -> tuple[int, dict[str, Any]]:
        """(parts of a window in blocks of so many pixels, options of the kernels that take them)."""
        block = min(block, self._lengths["BL"])
        options = self._options | {"BQ": block, "BK": block, "num_warps": block_warps(block)}
        return triton.cdiv(self.sizes.pixels, block), options

    def _prepare(
        self, kernel: Any, grid: Sequence[int], types: Sequence[torch.dtype], numbers: Sequence[float], **options: Any
    ) -> PreparedKernel:
        return PreparedKernel(kernel, grid, types, numbers, self._device, options)

    def _new(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self._device)

    def spread_bias(self, table: Tensor) -> Tensor:
        """(h, L, L): every query's and key's bias, in units of products not scaled yet; the table is contiguous."""
        bias = self._new((self.sizes.heads, self.sizes.pixels, self.sizes.pixels), self._bias_type)
        self._spread(table.data_ptr(), bias.data_ptr())
        return bias

    def attend(self, qkv: Tensor, bias: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
        """(y (B, H, W, C), norms (n, h, L) or empty)."""
        sizes = self.sizes
        y = self._new((*qkv.shape[:3], qkv.shape[3] // 3), self._kind)
        norms = self._new((sizes.count if keep else 0, sizes.heads, sizes.pixels), _FP32)
        kernel = self._attend_and_keep if keep else self._attend
        kernel(qkv.data_ptr(), bias.data_ptr(), y.data_ptr(), norms.data_ptr() if keep else bias.data_ptr())
        return y, norms

    def gradients(
        self, dy: Tensor, qkv: Tensor, bias: Tensor, y: Tensor, norms: Tensor, d_table: Tensor | None
    ) -> Tensor:
        """d_qkv, like qkv; the gradient of the table goes into d_table, if it is given."""
        d_qkv, deltas = torch.empty_like(qkv), torch.empty_like(norms)
        of_qkv, of_bias, of_dy, of_norms = qkv.data_ptr(), bias.data_ptr(), dy.data_ptr(), norms.data_ptr()
        without_y = (of_qkv, of_bias, of_dy, of_norms, deltas.data_ptr())
        self._of_queries(of_qkv, of_bias, y.data_ptr(), *without_y[2:], d_qkv.data_ptr())
        self._of_keys(*without_y, d_qkv.data_ptr())
        if d_table is not None:
            sums = self._new((self._shares, self.sizes.heads, self.sizes.pixels, self.sizes.pixels), _FP32)
            self._sum(*without_y, sums.data_ptr())
            self._table(sums.data_ptr(), d_table.data_ptr())
        return d_qkv


@functools.lru_cache(maxsize=512)
def window_plan(sizes: Windows, kind: torch.dtype, parameter: torch.dtype, device: torch.device) -> WindowPlan:
    """Kept: a plan takes longer than the pass that it is for. Only for windows that `tiles_for` has tiles for."""
    tiles = tiles_for(sizes.window_size, sizes.channels, kind, device)
    assert tiles is not None
    return WindowPlan(sizes, kind, parameter, device, tiles)
