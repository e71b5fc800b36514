"""LayerNorm and the gated LayerNorm of an RSSB's halves on the CPU: the compiled kernels on tensors.

Shapes: L rows (pixels), C >= 16 channels in V = ceil(C / 16) vectors, U units of rows.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mambair.ops.cpu.simd import LANES
from mambair.ops.cpu.workers import run_ranges
from mambair.ops.rssb.numba_kernels import ROWS, gate_backward_units, gate_units, norm_backward_units


def norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(LayerNorm(x) (L, C), the rows' stats (L, 2): mean, 1 / deviation) of x (L, C)."""
    y, mean, deviation = torch.native_layer_norm(x, x.shape[1:], weight, bias, eps)
    return y, torch.cat((mean, deviation), dim=1)


def norm_backward(
    x: Tensor, weight: Tensor, stats: Tensor, skip: Tensor, dy: Tensor, dout: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias and skip of LayerNorm(x) and x skip, from dy and dout, all (L, C)."""
    dx, sums = torch.empty_like(x), _new_sums(3, x)
    _run(norm_backward_units, len(x), x, weight, _once(x.shape[1]), stats, skip, dy, dout, dx, *sums)
    dweight, dbias, dskip = _collect(sums, x.shape[1])
    return dx, dweight, dbias, dskip


def gate(y: Tensor, xz: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(LayerNorm(y) SiLU(z) (L, C), the rows' stats (L, 2)) of y (L, C) and xz (L, 2 C), z behind."""
    gated, stats = torch.empty_like(y), y.new_empty(len(y), 2)
    _run(gate_units, len(y), eps, y, xz, weight, bias, _once(y.shape[1]), stats, gated)
    return gated, stats


def gate_backward(
    y: Tensor, xz: Tensor, weight: Tensor, bias: Tensor, stats: Tensor, dgated: Tensor, dxz: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(what `gate` gave, gradients of y, weight and bias); that of z is written to dxz (L, 2 C)."""
    gated, dy, sums = torch.empty_like(y), torch.empty_like(y), _new_sums(2, y)
    _run(gate_backward_units, len(y), y, xz, weight, bias, _once(y.shape[1]), stats, dgated, gated, dy, dxz, *sums)
    dweight, dbias = _collect(sums, y.shape[1])
    return gated, dy, dweight, dbias


def _run(kernel: Callable, rows: int, *arguments: Any) -> None:
    arrays = [argument.detach().numpy() if isinstance(argument, Tensor) else argument for argument in arguments]

    run_ranges(lambda first, last: kernel(first, last, *arrays), _units(rows), kernel)


def _units(rows: int) -> int:
    return -(-rows // ROWS)


def _vectors(channels: int) -> int:
    return -(-channels // LANES)


@functools.cache
def _once(channels: int) -> np.ndarray:
    """(V, 16): zeros for the last vector's channels that the one before has too, else ones."""
    vectors = _vectors(channels)
    once = np.ones((vectors, LANES), dtype=np.float32)
    once[-1, : vectors * LANES - channels] = 0
    return once


def _new_sums(count: int, x: Tensor) -> Tensor:
    """(n, U, V, 16): memory for `count` sums over the rows of x (L, C)."""
    return x.new_empty(count, _units(len(x)), _vectors(x.shape[1]), LANES)


def _collect(sums: Tensor, channels: int) -> tuple[Tensor, ...]:
    """(n, U, V, 16) -> n times (C,): the sums over the units, with each channel once."""
    vectors = sums.sum(dim=1)
    overlap = vectors.shape[1] * LANES - channels
    return torch.cat((vectors[:, :-1].flatten(1), vectors[:, -1, overlap:]), dim=1).unbind()
