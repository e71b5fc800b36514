"""What the scan kernels share: walking over pixels, delta of a tile, the recurrence along a tile.

Shapes: T pixels of one tile, BE = S * lanes channels of one program (a warp), R rank of delta.

Every tile is a (T, S, lanes) block in which one thread owns all T pixels of its S channels.
A scan along T then runs inside a thread: no shuffle, no shared memory, and constants such as "the first pixel" are
resolved when the kernel is compiled. In the machine code of the innermost loop nothing but the arithmetic is left.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def tile_pixels(tile, reverse, length, along, across, EVEN: tl.constexpr, T: tl.constexpr):
    """(base, offsets (T) from it, which of the T pixels exist) of a tile, in scan order.

    A line (image row or column) is cut into tiles of T pixels; the last one may stick out. Tiles are numbered by place
    in every direction; a reversed direction visits them, and the pixels in each, backwards. One division per tile and
    none per pixel: the offsets are an affine map. EVEN: T divides every line, so that all pixels exist.
    """
    tiles_per_line = tl.cdiv(length, T)
    line = tile // tiles_per_line
    start = (tile - line * tiles_per_line) * T
    t = tl.arange(0, T)
    step = tl.where(reverse, T - 1 - t, t)
    base = line.to(tl.int64) * across + start.to(tl.int64) * along
    exists = tl.full([T], True, tl.int1) if EVEN else start + step < length
    return base, step * along, exists


@triton.jit
def line_geometry(group, height, width, pixel_stride, IMAGE: tl.constexpr, T: tl.constexpr):
    """(length of a line, stride along it, stride between lines, number of tiles) of a group of directions.

    In an image group 0 runs along rows and group 1 along columns; in a sequence every group runs along the row.
    """
    columns = (group == 1) & IMAGE
    length = tl.where(columns, height, width)
    along = tl.where(columns, width * pixel_stride, pixel_stride)
    across = tl.where(columns, pixel_stride, width * pixel_stride)
    tile_count = tl.where(columns, width, height) * tl.cdiv(length, T)
    return length, along, across, tile_count


@triton.jit
def block_channels(block, E, BE: tl.constexpr):
    """(channel numbers (S, lanes), which of them exist) of a block of BE = S * lanes channels."""
    LANES: tl.constexpr = 32 if BE % 32 == 0 else BE
    lane = tl.arange(0, LANES)[None, :]
    e = block * BE + tl.arange(0, BE // LANES)[:, None] * LANES + lane
    return e, e < E


@triton.jit
def chunk_tiles(chunk, chunks, tile_count):
    """(first tile, number of tiles) of a chunk: even shares, so that none is empty while chunks <= tile_count."""
    low = chunk * tile_count // chunks
    return low, (chunk + 1) * tile_count // chunks - low


@triton.jit
def softplus(v):
    """log(1 + exp(v)), accurate to a few units in the last place where it is small too.

    log(1 + z) through the fp32 sum 1 + z would lose the digits of the small deltas (1e-3) that training starts at.
    The polynomial is log(1 + z) / z on [0, 1], relative error 3e-8; series with a division took twice the instructions.
    """
    z = tl.exp2(-tl.abs(v) * LOG2_E)
    p = -0.0295052007 + z * 0.00523268478
    p = -0.136632413 + z * (0.0782258883 + z * p)
    p = -0.24842982 + z * (0.191060036 + z * p)
    p = -0.499994934 + z * (0.333190978 + z * p)
    return tl.maximum(v, 0.0) + z * (0.99999994 + z * p)


@triton.jit
def softplus_slope(delta):
    """The derivative of softplus at the place where it is delta: 1 - exp(-delta), without cancellation.

    Taken from delta so that v need not stay in registers; it is 0 where delta was masked to 0.
    """
    series = 1.0 - delta * (0.5 - delta * (1.0 / 6 - delta * (1.0 / 24 - delta * (1.0 / 120 - delta * (1.0 / 720)))))
    return tl.where(delta < 0.25, delta * series, 1.0 - tl.exp2(-delta * LOG2_E))


@triton.jit
def tile_delta(
    dbl_ptr, delta_ptr, dt_weight_ptr, bias, channels, channel_mask, offsets, mask, E,
    R: tl.constexpr, T: tl.constexpr, FULL_DELTA: tl.constexpr, SOFTPLUS: tl.constexpr,
):  # fmt: skip
    """delta (T, S, lanes): read (a sequence), or the low-rank projection of dt (an image), plus bias, through softplus.

    It is zero where there is no pixel, so that the state passes through unchanged. The projection runs on plain FMA, 12
    per delta against 80 for its states: exact in fp32 on every GPU.
    """
    if FULL_DELTA:
        v = tl.load(delta_ptr + offsets, mask=mask, other=0.0).to(tl.float32) + bias[None, :, :]
    else:
        t = tl.arange(0, T)
        v = tl.zeros([T, 1, 1], tl.float32) + bias[None, :, :]
        for r in tl.static_range(R):
            dt = tl.load(dbl_ptr + r * T + t)
            weight = tl.load(dt_weight_ptr + r * E + channels, mask=channel_mask, other=0.0)
            v += dt[:, None, None] * weight[None, :, :]
    if SOFTPLUS:
        v = softplus(v)
    return tl.where(mask, v, 0.0)


@triton.jit
def _chain(decay_1, state_1, decay_2, state_2):
    return decay_1 * decay_2, decay_2 * state_1 + state_2


@triton.jit
def scan_states(decay, inflow, before, T: tl.constexpr):
    """(cumulative product of decay, h) with h[t] = decay[t] h[t-1] + inflow[t] and h[-1] = before."""
    first = (tl.arange(0, T) == 0)[:, None, None]
    inflow = tl.where(first, decay * before[None, :, :] + inflow, inflow)
    return tl.associative_scan((decay, inflow), 0, _chain)


@triton.jit
def _chain_split(decay_1, carried_1, inflow_1, decay_2, carried_2, inflow_2):
    return decay_1 * decay_2, decay_2 * (carried_1 + inflow_1) + carried_2, inflow_2


@triton.jit
def scan_carried(decay, inflow, before, T: tl.constexpr):
    """decay[t] h[t-1], that is h[t] - inflow[t] without its cancellation where decay is small."""
    first = (tl.arange(0, T) == 0)[:, None, None]
    # Adding -0.0 is no operation for the compiler, adding 0.0 is one.
    carried = tl.where(first, decay * before[None, :, :], -0.0)
    _, carried, _ = tl.associative_scan((decay, carried, inflow), 0, _chain_split)
    return carried


@triton.jit
def _chain_shifted(decay_1, inner_1, state_1, decay_2, inner_2, state_2):
    # Of a run of elements: decay of its newest element, product of the other decays, state after it. Appending one
    # element (inner_2 = 1) leaves a single FMA, since nothing else is used and constants fold.
    return decay_2, inner_2 * decay_1 * inner_1, inner_2 * decay_1 * state_1 + state_2


@triton.jit
def scan_adjoints(decay, inflow, after, T: tl.constexpr):
    """g[t] = inflow[t] + decay[t+1] g[t+1], where decay[T] g[T] = after: the scan of the gradients, backwards.

    Flipping costs nothing, the T values being a thread's registers; `reverse=True` would cost 15 shuffles per value
    (seen in Triton 3.6's and 3.8's machine code). The shift of decay by one pixel is in `_chain_shifted`.
    """
    last = (tl.arange(0, T) == T - 1)[:, None, None]
    inflow = tl.where(last, inflow + after[None, :, :], inflow)
    ones = tl.full(decay.shape, 1.0, tl.float32)
    _, _, g = tl.associative_scan((tl.flip(decay, 0), ones, tl.flip(inflow, 0)), 0, _chain_shifted)
    return tl.flip(g, 0)


@triton.jit
def _either(bits_1, bits_2):
    return bits_1 | bits_2


@triton.jit
def row_of(tile, index: tl.constexpr, T: tl.constexpr):
    """Row `index` of a tile. The `or` of bits folds into a register; a sum with zeros would stay T additions."""
    chosen = (tl.arange(0, T) == index)[:, None, None]
    bits = tl.where(chosen, tile.to(tl.int32, bitcast=True), 0)
    return tl.reduce(bits, 0, _either).to(tl.float32, bitcast=True)
