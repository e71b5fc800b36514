"""What comes before the scans: parameters packed, and delta, B and C of every direction.

Shapes: B batch, L pixels, E channels of a group, N states, R rank of delta, P = R + 2N; a launch treats S of the K
directions, numbered by slot.

    projected     (B L, K P)          dt, B, C of every direction, of x's type
    dt_weight     (K, R, E)           fp32
    delta         (B L, S, E)         softplus of the projected dt plus bias; fp16 for half-precision inputs, else fp32
    tile_bc       (B, S, tiles, 2N, T)  fp32 B and C in each direction's own order, zero past a line's end
"""

import triton
import triton.language as tl

from mambair.ops.ss2d.triton_walk import direction, line_geometry, places_of_tiles

LOG2_E = tl.constexpr(1.4426950408889634)
_HALF_MAX = tl.constexpr(65504.0)


@triton.jit
def softplus(v, HALF: tl.constexpr):
    """log(1 + exp(v)), as accurate where it is small: to a few units in fp32's last place, or 9e-6 if HALF.

    log(1 + z) through the fp32 sum 1 + z would lose the digits of the small deltas (1e-3) that training starts at.
    The polynomials are log(1 + z) / z on [0, 1]; series with a division took twice the instructions.
    """
    z = tl.exp2(-tl.abs(v) * LOG2_E)
    if HALF:
        p = 0.101198679 - z * 0.0238602521
        p = 0.325198095 + z * (-0.210026471 + z * p)
        p = 0.999991617 + z * (-0.499360297 + z * p)
    else:
        p = -0.0295052007 + z * 0.00523268478
        p = -0.136632413 + z * (0.0782258883 + z * p)
        p = -0.24842982 + z * (0.191060036 + z * p)
        p = -0.499994934 + z * (0.333190978 + z * p)
        p = 0.99999994 + z * p
    return tl.maximum(v, 0.0) + z * p


@triton.jit
def softplus_slope(delta, delta_type: tl.constexpr):
    """The derivative of softplus at the place where it is delta: 1 - exp(-delta).

    Taken from delta so that v need not be kept; it is 0 where delta was masked to 0. A small delta in fp32 needs a
    series against cancellation; in fp16 it has no more digits than the difference.
    """
    if delta_type == tl.float16:
        return 1.0 - tl.exp2(delta * -LOG2_E)
    series = 1.0 - delta * (0.5 - delta * (1.0 / 6 - delta * (1.0 / 24 - delta * (1.0 / 120 - delta * (1.0 / 720)))))
    return tl.where(delta < 0.25, delta * series, 1.0 - tl.exp2(delta * -LOG2_E))


@triton.jit(do_not_specialize=["E"])
def pack_parameters_kernel(
    A_logs_ptr, dt_weight_ptr, A2_ptr, dt_weight_packed_ptr, E, N, R, BN: tl.constexpr, BR: tl.constexpr,
    BE: tl.constexpr,
):  # fmt: skip
    """A_logs (K E, N) -> A2 (K, EB, N, BE); dt_projs_weight (K, E, R) -> (K, R, E): channels side by side, fp32."""
    k = tl.program_id(1)
    e = tl.program_id(0) * BE + tl.arange(0, BE)
    n = tl.arange(0, BN)
    r = tl.arange(0, BR)
    mask = (e < E)[:, None] & (n < N)[None, :]
    A_logs = tl.load(A_logs_ptr + (k * E + e)[:, None] * N + n[None, :], mask=mask, other=0.0).to(tl.float32)
    A2 = tl.where(mask, -tl.exp(A_logs) * LOG2_E, 0.0)
    block = (k * tl.num_programs(0) + tl.program_id(0)) * N * BE
    tl.store(A2_ptr + block + n[None, :] * BE + tl.arange(0, BE)[:, None], A2, mask=(n < N)[None, :])
    mask = (e < E)[:, None] & (r < R)[None, :]
    weight = tl.load(dt_weight_ptr + (k * E + e)[:, None] * R + r[None, :], mask=mask, other=0.0).to(tl.float32)
    tl.store(dt_weight_packed_ptr + (k * R + r)[None, :] * E + e[:, None], weight, mask=mask)


@triton.jit
def delta_kernel(
    projected_ptr, dt_weight_ptr, bias_ptr, given_ptr, delta_ptr, pixels, K, G, first_group, groups,
    E: tl.constexpr, R: tl.constexpr, P: tl.constexpr, SLOTS: tl.constexpr, RUN: tl.constexpr, SHARING: tl.constexpr,
    PIXELS: tl.constexpr, BLOCK: tl.constexpr, GIVEN: tl.constexpr, SOFTPLUS: tl.constexpr,
):  # fmt: skip
    """delta of one direction. GIVEN: delta before bias is in given_ptr (B L, K, E).

    A thread takes RUN channels side by side of PIXELS pixels, and SHARING threads side by side those of as many times
    more pixels; all share the weights, whose loads would otherwise take longer than all arithmetic. With a rank of up
    to 7, plain multiplications are no slower than tensor cores, which wait for shared memory.
    """
    # Directions of a pixel side by side: they share sectors of memory.
    slot = tl.program_id(0) % SLOTS
    _, _, k = direction(slot, first_group, groups, G)
    RUNS: tl.constexpr = E // RUN
    start = (tl.program_id(0) // SLOTS).to(tl.int64) * BLOCK
    place = (start % (RUNS * SHARING)).to(tl.int32) + tl.arange(0, BLOCK)[:, None]
    first = (start // (RUNS * SHARING) + place // (RUNS * SHARING)) * (SHARING * PIXELS) + place % SHARING
    e = place // SHARING % RUNS * RUN + tl.arange(0, RUN)[None, :]
    bias = tl.load(bias_ptr + k * E + e).to(tl.float32)
    values = ()
    for p in tl.static_range(PIXELS):
        pixel = first + p * SHARING
        v = bias
        if GIVEN:
            given = tl.load(given_ptr + (pixel * K + k) * E + e, mask=pixel < pixels, other=0.0)
            v += given.to(tl.float32)
        values += (v,)
    if not GIVEN:
        for r in tl.static_range(R):
            weight = tl.load(dt_weight_ptr + (k * R + r) * E + e)
            sums = ()
            for p in tl.static_range(PIXELS):
                pixel = first + p * SHARING
                dt = tl.load(projected_ptr + pixel * (K * P) + k * P + r, mask=pixel < pixels, other=0.0)
                sums += (values[p] + dt.to(tl.float32) * weight,)
            values = sums
    HALF: tl.constexpr = delta_ptr.dtype.element_ty == tl.float16
    for p in tl.static_range(PIXELS):
        pixel = first + p * SHARING
        v = values[p]
        if SOFTPLUS:
            v = softplus(v, HALF)
        if HALF:
            v = tl.minimum(v, _HALF_MAX) if SOFTPLUS else tl.clamp(v, -_HALF_MAX, _HALF_MAX)
        tl.store(delta_ptr + (pixel * SLOTS + slot) * E + e, v.to(delta_ptr.dtype.element_ty), mask=pixel < pixels)


@triton.jit
def delta_product_kernel(
    projected_ptr, dt_weight_ptr, bias_ptr, given_ptr, delta_ptr, pixels, K, G, first_group, groups,
    E: tl.constexpr, R: tl.constexpr, P: tl.constexpr, SLOTS: tl.constexpr, BR: tl.constexpr, BL: tl.constexpr,
    BE: tl.constexpr,
):  # fmt: skip
    """delta of one direction, projected and kept in 16 bits: BL pixels by BE channels on the tensor cores.

    A weight is the sum of two numbers of 16 bits, to 2^-17 of it in bf16; given_ptr is not read.
    """
    # Blocks of a direction's channels, and directions of a pixel, side by side: they share sectors of memory.
    BLOCKS: tl.constexpr = (E + BE - 1) // BE
    block = tl.program_id(0) % BLOCKS
    slot = tl.program_id(0) // BLOCKS % SLOTS
    _, _, k = direction(slot, first_group, groups, G)
    pixel = (tl.program_id(0) // (BLOCKS * SLOTS)).to(tl.int64) * BL + tl.arange(0, BL)[:, None]
    r = tl.arange(0, BR)
    e = block * BE + tl.arange(0, BE)[None, :]
    source = projected_ptr + pixel * (K * P) + k * P + r[None, :]
    dt = tl.load(source, mask=(pixel < pixels) & (r < R)[None, :], other=0.0)
    weight = tl.load(dt_weight_ptr + (k * R + r[:, None]) * E + e, mask=(r < R)[:, None] & (e < E), other=0.0)
    bias = tl.load(bias_ptr + k * E + e, mask=e < E, other=0.0).to(tl.float32)
    upper = weight.to(dt.dtype)
    v = tl.dot(dt, (weight - upper.to(tl.float32)).to(dt.dtype))
    v = tl.dot(dt, upper, v) + bias
    v = tl.minimum(softplus(v, True), _HALF_MAX)
    target = delta_ptr + (pixel * SLOTS + slot) * E + e
    tl.store(target, v.to(delta_ptr.dtype.element_ty), mask=(pixel < pixels) & (e < E))


@triton.jit
def order_bc_kernel(
    projected_ptr, tile_bc_ptr, height, width, P, R, N, K, G, first_group, groups, tile_pitch,
    BP: tl.constexpr, BT: tl.constexpr, T: tl.constexpr, IMAGE: tl.constexpr, SENSES: tl.constexpr,
):  # fmt: skip
    """projected -> tile_bc: a state's T values of B or C become one aligned run. A program takes BT tiles."""
    tile = tl.program_id(0) * BT + tl.arange(0, BT)
    slot = tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    group, sense, k = direction(slot, first_group, groups, G)
    length, lines, along, across = line_geometry(group, height, width, IMAGE)
    pixels, exists = places_of_tiles(tile, sense, length, lines, along, across, T)
    p = tl.arange(0, BP)[None, :, None]
    source = projected_ptr + (b * height * width + pixels[:, None, :]) * (K * P) + k * P + R + p
    values = tl.load(source, mask=exists[:, None, :] & (p < 2 * N), other=0.0)
    place = ((b * SENSES * groups + slot) * tile_pitch + tile[:, None, None]) * (2 * N) + p
    mask = (tile < lines * tl.cdiv(length, T))[:, None, None] & (p < 2 * N)
    target = tile_bc_ptr + place * T + tl.arange(0, T)[None, None, :]
    tl.store(target, values.to(tl.float32), mask=mask)
