"""Buffers and launches of the kernels of window attention; triton_kernels.py has the legend of the shapes."""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from mambair.ops.ss2d.triton_launch import LOG2_E, product_precision
from mambair.ops.window_attention import triton_kernels as kernels

# Pixels of a window that one tile of scores holds, and the GPUs whose tensor cores can hold it: older ones spill.
MAX_PIXELS = 256
MIN_CAPABILITY = (8, 0)
# Queries or keys at a time, and warps for them: with more of the former or fewer of the latter, the kernels of the
# backward pass spill many more registers (seen in Triton 3.8's code).
_BLOCK, _WARPS = 32, 8
# Queries and keys at a time of the forward pass, and its warps: one for 16 queries, since more would compute the same.
_FORWARD_BLOCK, _FORWARD_WARPS = 64, 4
# Programs that the sums over windows are spread over: about a large GPU's multiprocessors. Not those of the GPU at
# hand, so that the order of the sums is the same on all.
_SHARES = 128


def shared_memory_bound(channels: int, dtype: torch.dtype) -> int:
    """Bytes of the memory that a program's warps share, which no kernel here takes more than."""
    half = (36 + 5 * padded_channels(channels) // 2) * 1024
    # Products of fp32 keep both parts of each number.
    return half if dtype.itemsize == 2 else 3 * half


def padded_channels(channels: int) -> int:
    """Channels of a head as matrix products take them."""
    return max(16, triton.next_power_of_2(channels))


def fits(window_size: int, channels: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the kernels take windows and heads of this size on this device."""
    if window_size**2 > MAX_PIXELS:
        return False
    if device.type != "cuda":  # the interpreter
        return True
    properties: Any = torch.cuda.get_device_properties(device)  # torch's types know fewer than there are
    if (properties.major, properties.minor) < MIN_CAPABILITY:
        return False
    return shared_memory_bound(channels, dtype) <= properties.shared_memory_per_block_optin


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

    def options(self, qkv: Tensor) -> dict:
        """Compile-time arguments of the kernels with scores."""
        return {
            "w": self.window_size,
            "L": self.pixels,
            "BL": max(16, triton.next_power_of_2(self.pixels)),
            "d": self.channels,
            "BD": padded_channels(self.channels),
            "SHIFTED": self.shift > 0,
            "PRECISION": product_precision(qkv.dtype, qkv.device),
            "num_stages": 1,
        }


def sizes_of(qkv: Tensor, bias_table: Tensor, window_size: int, shift: int) -> Windows:
    batch, height, width, channels = qkv.shape
    heads = bias_table.shape[1]
    head = channels // (3 * heads)
    return Windows(batch, height, width, heads, head, window_size, shift, head)


def spread_bias(sizes: Windows, bias_table: Tensor, dtype: torch.dtype) -> Tensor:
    """(h, L, L): every query's and key's bias, in units of products not scaled yet, for inputs of type `dtype`."""
    kept = torch.float32 if dtype == torch.float32 else torch.float16
    bias = torch.empty(sizes.heads, sizes.pixels, sizes.pixels, dtype=kept, device=bias_table.device)
    table = bias_table.contiguous()
    with torch.cuda.device_of(table):
        kernels.spread_bias_kernel[(sizes.heads, sizes.pixels)](
            table, bias, sizes.scaled_by**0.5, w=sizes.window_size, L=sizes.pixels,
            BL=triton.next_power_of_2(sizes.pixels), num_warps=4,
        )  # fmt: skip
    return bias


def attend(sizes: Windows, qkv: Tensor, bias: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    """(y (B, H, W, C), norms (n, h, L) or empty)."""
    y = torch.empty((*qkv.shape[:3], qkv.shape[3] // 3), dtype=qkv.dtype, device=qkv.device)
    norms = torch.empty((sizes.count if keep else 0, sizes.heads, sizes.pixels), dtype=torch.float32, device=qkv.device)
    options = sizes.options(qkv)
    block = min(_FORWARD_BLOCK, options["BL"])
    with torch.cuda.device_of(qkv):
        kernels.attention_kernel[(sizes.heads, sizes.count, triton.cdiv(sizes.pixels, block))](
            qkv, bias, y, norms, *sizes.places(), BQ=block, BK=block, KEEP=keep, num_warps=_FORWARD_WARPS, **options
        )
    return y, norms


def attention_gradients(
    sizes: Windows, dy: Tensor, qkv: Tensor, bias: Tensor, y: Tensor, norms: Tensor, d_table: Tensor | None
) -> Tensor:
    """d_qkv, like qkv; the gradient of the table goes into d_table, if it is given."""
    d_qkv = torch.empty_like(qkv)
    deltas = torch.empty_like(norms)
    options = sizes.options(qkv)
    block = min(_BLOCK, options["BL"])
    grid = (sizes.heads, sizes.count)
    with torch.cuda.device_of(qkv):
        kernels.gradients_kernel[grid](
            qkv, bias, y, dy, norms, deltas, d_qkv, *sizes.places(), BK=block, num_warps=_WARPS, **options
        )
        if d_table is None:
            return d_qkv
        blocks = triton.cdiv(sizes.pixels, block)
        share = triton.cdiv(sizes.count, max(1, _SHARES // (sizes.heads * blocks)))
        shares = triton.cdiv(sizes.count, share)
        sums = torch.empty(shares, sizes.heads, sizes.pixels, sizes.pixels, dtype=torch.float32, device=qkv.device)
        kernels.score_sums_kernel[(sizes.heads, blocks, shares)](
            qkv,
            bias,
            dy,
            norms,
            deltas,
            sums,
            *sizes.places(),
            sizes.count,
            share,
            BQ=block,
            num_warps=_WARPS,
            **options,
        )
        kernels.table_gradient_kernel[(sizes.heads, 2 * sizes.window_size - 1)](
            sums, d_table, shares, w=sizes.window_size, L=sizes.pixels,
            BW=triton.next_power_of_2(sizes.window_size), num_warps=4,
        )  # fmt: skip
    return d_qkv
