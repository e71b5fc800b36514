"""Compiled kernels of an RSSB's halves for the CPU: LayerNorm and the gated LayerNorm, row by row, with gradients.

Channels are gone through 16 at a time; the last vector ends with the last channel and overlaps the one before. Both
write the same values there; sums over channels count them once, by `once`, and sums over rows lie in the vectors' own
places until `mambair.ops.rssb.numba_rows` takes them apart.

Shapes: L rows (pixels), C >= 16 channels in V = ceil(C / 16) vectors, U units of ROWS rows.
"""

import math

from numba import njit

from mambair.ops.cpu.compilation import SOURCES, kernel
from mambair.ops.cpu.simd import LANES, broadcast, fma, lane_sum, load, sigmoid, store

ROWS = 256


@njit(error_model="numpy")
def first_channel(vector, channels):
    """Where a vector of channels begins."""
    return min(vector * LANES, channels - LANES)


@njit(error_model="numpy")
def clear(sums, unit):
    """Set a unit's sums (U, V, 16) to zero."""
    for vector in range(sums.shape[1]):
        store(sums, (unit, vector), broadcast(0.0))


@njit(error_model="numpy")
def add(sums, unit, vector, value):
    """Add a vector to a unit's sums (U, V, 16)."""
    store(sums, (unit, vector), load(sums, (unit, vector)) + value)


@njit(error_model="numpy")
def measure_row(x, row, once, eps, stats):
    """stats[row] = (mean, 1 / sqrt(variance + eps)) of a row of x (L, C); once: (V, 16)."""
    channels = x.shape[1]
    total = broadcast(0.0)
    for vector in range(once.shape[0]):
        total = fma(load(x, (row, first_channel(vector, channels))), load(once, (vector,)), total)
    mean = lane_sum(total) / x.dtype.type(channels)
    squares = broadcast(0.0)
    for vector in range(once.shape[0]):
        centred = load(x, (row, first_channel(vector, channels))) - broadcast(mean)
        squares = fma(centred * centred, load(once, (vector,)), squares)
    variance = lane_sum(squares) / x.dtype.type(channels)
    stats[row, 0] = mean
    stats[row, 1] = x.dtype.type(1.0) / math.sqrt(variance + x.dtype.type(eps))


@njit(error_model="numpy")
def normalized(x, row, channel, stats):
    """16 channels of a row, minus its mean, over its deviation."""
    return (load(x, (row, channel)) - broadcast(stats[row, 0])) * broadcast(stats[row, 1])


@kernel
def norm_backward_units(
    first_unit, last_unit, x, weight, once, stats, skip, dy, dout, dx, dweight, dbias, dskip, sources=SOURCES
):  # fmt: skip
    """Gradients of y = LayerNorm(x) and of x skip together: dy is that of y, dout that of x skip.

    x, dy, dout, dx: (L, C).  weight, skip: (C,).  dweight, dbias, dskip: (U, V, 16).
    """
    for unit in range(first_unit, last_unit):
        rows, channels = x.shape
        share = x.dtype.type(1.0 / channels)
        clear(dweight, unit)
        clear(dbias, unit)
        clear(dskip, unit)
        for row in range(unit * ROWS, min(rows, (unit + 1) * ROWS)):
            along_one, along_normal = broadcast(0.0), broadcast(0.0)
            for vector in range(once.shape[0]):
                channel = first_channel(vector, channels)
                gradient, normal = load(dy, (row, channel)), normalized(x, row, channel, stats)
                add(dbias, unit, vector, gradient)
                add(dweight, unit, vector, gradient * normal)
                add(dskip, unit, vector, load(dout, (row, channel)) * load(x, (row, channel)))
                inner = gradient * load(weight, (channel,)) * load(once, (vector,))
                along_one = along_one + inner
                along_normal = fma(inner, normal, along_normal)
            mean, slope = broadcast(lane_sum(along_one) * share), broadcast(lane_sum(along_normal) * share)
            for vector in range(once.shape[0]):
                channel = first_channel(vector, channels)
                inner = load(dy, (row, channel)) * load(weight, (channel,)) - mean
                inner = (inner - normalized(x, row, channel, stats) * slope) * broadcast(stats[row, 1])
                store(dx, (row, channel), fma(load(dout, (row, channel)), load(skip, (channel,)), inner))


@kernel
def gate_units(first_unit, last_unit, eps, y, xz, weight, bias, once, stats, gated, sources=SOURCES):
    """gated = LayerNorm(y) SiLU(z), and the rows' stats (L, 2).  y, gated: (L, C).  xz: (L, 2 C), z behind."""
    for unit in range(first_unit, last_unit):
        rows, channels = y.shape
        for row in range(unit * ROWS, min(rows, (unit + 1) * ROWS)):
            measure_row(y, row, once, eps, stats)
            for vector in range(once.shape[0]):
                channel = first_channel(vector, channels)
                value = fma(normalized(y, row, channel, stats), load(weight, (channel,)), load(bias, (channel,)))
                z = load(xz, (row, channels + channel))
                store(gated, (row, channel), value * (z * sigmoid(z)))


@kernel
def gate_backward_units(
    first_unit, last_unit, y, xz, weight, bias, once, stats, dgated, gated, dy, dxz, dweight, dbias, sources=SOURCES
):  # fmt: skip
    """Gradients of `gate_units`, and its result once more.

    dgated, gated, dy: (L, C).  dxz: (L, 2 C), the half of z is written.  dweight, dbias: (U, V, 16).
    """
    for unit in range(first_unit, last_unit):
        rows, channels = y.shape
        share, one = y.dtype.type(1.0 / channels), broadcast(1.0)
        clear(dweight, unit)
        clear(dbias, unit)
        for row in range(unit * ROWS, min(rows, (unit + 1) * ROWS)):
            along_one, along_normal = broadcast(0.0), broadcast(0.0)
            for vector in range(once.shape[0]):
                channel = first_channel(vector, channels)
                normal, scale = normalized(y, row, channel, stats), load(weight, (channel,))
                value = fma(normal, scale, load(bias, (channel,)))
                z, gradient = load(xz, (row, channels + channel)), load(dgated, (row, channel))
                gate = sigmoid(z)
                silu = z * gate
                store(gated, (row, channel), value * silu)
                # SiLU's derivative: s + z s (1 - s).
                store(dxz, (row, channels + channel), gradient * value * fma(silu, one - gate, gate))
                gradient = gradient * silu
                add(dbias, unit, vector, gradient)
                add(dweight, unit, vector, gradient * normal)
                inner = gradient * scale
                store(dy, (row, channel), inner)
                inner = inner * load(once, (vector,))
                along_one = along_one + inner
                along_normal = fma(inner, normal, along_normal)
            mean, slope = broadcast(lane_sum(along_one) * share), broadcast(lane_sum(along_normal) * share)
            # Not in place: the vectors that overlap would find what the other one has written.
            last = load(dy, (row, channels - LANES))
            for vector in range(once.shape[0]):
                channel = first_channel(vector, channels)
                inner = last if channel == channels - LANES else load(dy, (row, channel))
                inner = inner - mean - normalized(y, row, channel, stats) * slope
                store(dy, (row, channel), inner * broadcast(stats[row, 1]))
