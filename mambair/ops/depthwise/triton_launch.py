"""Buffers, grids and launches of the depthwise kernels; triton_kernels.py has the legend of the shapes."""

import functools
import math
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from mambair.ops.depthwise import triton_kernels as kernels

_THREADS = 128
_LAUNCH = {"num_warps": _THREADS // 32, "num_stages": 1}
_BLOCKS = (64, 32, 16)


@dataclass(frozen=True)
class Tiling:
    """How a kernel cuts an image.

    values: per thread.  unroll: rows whose loads are under way together.  programs: about as many as keep a large GPU
    busy; not taken from the GPU at hand, so that the order of sums, and with it every bit, is the same on all.
    min_rows: of a strip, since a strip reads two rows more than it yields.
    """

    values: int
    unroll: int
    programs: int
    min_rows: int


CONVOLVE = Tiling(values=4, unroll=2, programs=2048, min_rows=8)
GRADIENTS = Tiling(values=4, unroll=2, programs=768, min_rows=16)


def channels_side_by_side(x: Tensor) -> Tensor:
    """x itself if the kernels can read it, else a contiguous copy."""
    return x if x.stride(3) == 1 or x.shape[3] == 1 else x.contiguous()


def _block(channels: int) -> int:
    """Channels per program: the widest block that computes at most a tenth more padding than the best."""
    padded = {block: triton.cdiv(channels, block) * block for block in _BLOCKS}
    return next(block for block in _BLOCKS if padded[block] <= 1.1 * min(padded.values()))


@dataclass(frozen=True)
class Plan:
    """What a launch needs: parts (places, each of all channels), grid, sizes and compile-time arguments."""

    parts: int
    grid: tuple[int]
    sizes: tuple[int, ...]
    options: dict


@functools.lru_cache(maxsize=1024)
def _plan(shape: torch.Size, strides: tuple[int, ...], dilation: int, tiling: Tiling) -> Plan:
    """Kept, since to work it out takes the CPU longer than a small image takes the GPU."""
    batch, height, width, channels = shape
    block = _block(channels)
    vector = math.gcd(8, channels, *strides[:3])
    columns = tiling.values * _THREADS // block
    blocks_w, blocks_c = triton.cdiv(width, columns), triton.cdiv(channels, block)
    # Rows of one residue modulo the dilation are neighbours of each other and of no other row.
    residues, lines = min(dilation, height), triton.cdiv(height, dilation)
    others = batch * residues * blocks_w
    strips = min(triton.cdiv(tiling.programs, others * blocks_c), max(1, lines // tiling.min_rows))
    rows = triton.cdiv(lines, strips)
    strips = triton.cdiv(lines, rows)
    groups = tuple(stride // vector for stride in strides[:3])
    return Plan(
        parts=others * strips,
        grid=(others * strips * blocks_c,),
        sizes=(height, width, channels // vector, *groups, dilation, residues, rows, strips, blocks_w),
        options={"V": vector, "PX": columns, "BC": block, "UNROLL": tiling.unroll, **_LAUNCH},
    )


def pack_weight(weight: Tensor) -> Tensor:
    """(9, C), fp32, from (C, 1, 3, 3): channels side by side, so that a thread reads its own with a few wide loads."""
    packed = weight.new_empty(9, weight.shape[0], dtype=torch.float32)
    return packed.copy_(weight.view(-1, 9).t())


def convolve(
    x: Tensor, packed: Tensor, bias: Tensor | None, dilation: int, silu: bool, dy: Tensor | None = None
) -> Tensor:
    """The convolution of x (B, H, W, C), contiguous; with dy, dy times the slope of the SiLU behind it instead."""
    plan = _plan(x.shape, x.stride(), dilation, CONVOLVE)
    y = x.new_empty(x.shape)
    with torch.cuda.device_of(x):
        kernels.convolve_kernel[plan.grid](
            x, packed, packed if bias is None else bias, y if dy is None else dy, y, *plan.sizes,
            BIAS=bias is not None, SILU=silu and dy is None, SLOPE=dy is not None, **plan.options,
        )  # fmt: skip
    return y


def convolution_gradients(
    dy: Tensor, x: Tensor, packed: Tensor, bias: Tensor | None, weight: Tensor, dilation: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias (empty if there is none), each in its tensor's type; dy is contiguous."""
    plan = _plan(x.shape, x.stride(), dilation, GRADIENTS)
    channels = x.shape[3]
    dx, d_weight = x.new_empty(x.shape), weight.new_empty(weight.shape)
    d_bias = weight.new_empty(0) if bias is None else bias.new_empty(channels)
    parts = packed.new_empty(plan.parts, 10, channels)
    with torch.cuda.device_of(x):
        kernels.gradients_kernel[plan.grid](x, packed, dy, dx, parts, *plan.sizes, **plan.options)
        kernels.sum_parts_kernel[(triton.cdiv(channels, 32), 9 if bias is None else 10)](
            parts, d_weight, d_bias, plan.parts, channels, BP=128, BC=32, num_warps=8, num_stages=1
        )
    return dx, d_weight, d_bias
