"""Backward kernels of the chunked scan; triton_forward.py has the legend of the shapes.

One launch treats S directions: both senses of its groups, all forward ones first.

    adjoints      (B, S, C, N, E)          decay[t] g[t] that leaves a chunk against its direction; g = dLoss/dh
    tile_states   (B, S, tiles, N, E)      the state that enters each tile, recomputed
    dx_parts      (senses, B, L, pixel stride)
    d_dbl         (EB, B, S, tiles, P, T)  gradient of dbl, one part per block of channels
    d_parameters  (B C, S, N + R + 2, E)   rows A, dt weight, bias, D; one part per chunk
"""

import triton
import triton.language as tl

from mambair.ops.ss2d.triton_tile import (
    LN_2,
    block_channels,
    chunk_tiles,
    line_geometry,
    row_of,
    scan_adjoints,
    scan_carried,
    scan_states,
    softplus_slope,
    tile_delta,
    tile_pixels,
)


@triton.jit(do_not_specialize=["E"])
def chunk_adjoints_kernel(
    x_ptr, dy_ptr, delta_ptr, dbl_ptr, A2_ptr, dt_weight_ptr, bias_ptr, states_ptr, carry_ptr, tile_states_ptr,
    adjoints_ptr,
    height, width, pixel_stride, group_stride, E, N, K, G, tile_pitch, chunks, first_group, groups,
    R: tl.constexpr, T: tl.constexpr, BE: tl.constexpr, IMAGE: tl.constexpr, EVEN: tl.constexpr,
    FULL_DELTA: tl.constexpr, SOFTPLUS: tl.constexpr, SENSES: tl.constexpr,
):  # fmt: skip
    """tile_states, and each chunk's own contribution to its adjoint.

    One pass over the states serves both, since the decay since the chunk's start, which weights C dy in the adjoint,
    is the running product that the scan yields anyway: one exponential per state instead of two.
    """
    chunk = tl.program_id(1)
    slot = tl.program_id(2) % (SENSES * groups)
    b = (tl.program_id(2) // (SENSES * groups)).to(tl.int64)
    sense = slot // groups
    group = first_group + slot % groups
    k = group + sense * G
    length, along, across, tile_count = line_geometry(group, height, width, pixel_stride, IMAGE, T)
    e, exists_e = block_channels(tl.program_id(0), E, BE)
    bias = tl.load(bias_ptr + k * E + e, mask=exists_e, other=0.0).to(tl.float32)
    image = b * height * width * pixel_stride + group * group_stride
    P = R + 2 * N
    dbl_ptr += (b * K + k) * tile_pitch * P * T
    states_ptr += ((b * K + k) * chunks + chunk) * N * E + e
    carry_ptr += ((b * (SENSES * groups) + slot) * chunks + chunk) * N * E + e
    adjoints_ptr += ((b * (SENSES * groups) + slot) * chunks + chunk) * N * E + e
    tile_states_ptr += (b * (SENSES * groups) + slot) * tile_pitch * N * E + e
    A2_ptr += k * N * E + e
    t = tl.arange(0, T)
    passed = tl.zeros_like(bias)
    low, count = chunk_tiles(chunk, chunks, tile_count)
    for i in range(count):
        tile = tl.where(sense == 1, low + count - 1 - i, low + i)
        base, pixels, exists = tile_pixels(tile, sense == 1, length, along, across, EVEN, T)
        mask = exists[:, None, None] & exists_e[None, :, :]
        offsets = pixels[:, None, None] + e[None, :, :]
        base += image
        x = tl.load(x_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32)
        dbl = dbl_ptr + tile.to(tl.int64) * (P * T)
        delta = tile_delta(
            dbl, delta_ptr + base, dt_weight_ptr + k * R * E, bias, e, exists_e, offsets, mask, E, R, T, FULL_DELTA,
            SOFTPLUS,
        )  # fmt: skip
        delta_x = delta * x
        tile_states = tile_states_ptr + tile.to(tl.int64) * N * E
        entering = tl.where(i > 0, carry_ptr, states_ptr)
        for n in range(N):
            B = tl.load(dbl + (R + n) * T + t)
            C = tl.load(dbl + (R + N + n) * T + t)
            A2 = tl.load(A2_ptr + n * E, mask=exists_e, other=0.0)
            before = tl.load(entering + n * E, mask=exists_e, other=0.0)
            gathered = tl.load(adjoints_ptr + n * E, mask=exists_e & (i > 0), other=0.0)
            decay, h = scan_states(tl.exp2(delta * A2[None, :, :]), delta_x * B[:, None, None], before, T)
            own = tl.sum(decay * (dy * C[:, None, None]), 0)
            tl.store(adjoints_ptr + n * E, gathered + tl.exp2(passed * A2) * own, mask=exists_e)
            tl.store(carry_ptr + n * E, row_of(h, T - 1, T), mask=exists_e)
            tl.store(tile_states + n * E, before.to(tile_states_ptr.dtype.element_ty), mask=exists_e)
        passed += tl.sum(delta, 0)


@triton.jit
def sum_over_channels(first, second, T: tl.constexpr, PRECISION: tl.constexpr):
    """Sums of two (T, S, lanes) tiles over their channels as one product with ones: (2 T, 8), every column the same.

    A thread's own channels are added first. Across threads, shuffles would take 5 per value; staging through shared
    memory for the tensor cores takes half of one. tf32 keeps 11 bits of a value; for fp32 its upper bits and the rest
    go in side by side, and ones need no third term.
    """
    first, second = tl.sum(first, 1), tl.sum(second, 1)
    LANES: tl.constexpr = first.shape[1]
    both = tl.reshape(tl.permute(tl.join(first, second), (2, 0, 1)), (2 * T, LANES))
    if PRECISION == "tf32x3":
        upper = (both.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
        both = tl.reshape(tl.join(upper, both - upper), (2 * T, 2 * LANES))
        sums = tl.dot(both, tl.full([2 * LANES, 8], 1.0, tl.float32), input_precision="tf32")
    else:
        sums = tl.dot(both, tl.full([LANES, 8], 1.0, tl.float32), input_precision=PRECISION)
    return sums


@triton.jit(do_not_specialize=["E"])
def gradients_kernel(
    x_ptr, dy_ptr, delta_ptr, dbl_ptr, A2_ptr, dt_weight_ptr, bias_ptr, D_ptr, tile_states_ptr, adjoints_ptr,
    dx_parts_ptr, d_delta_ptr, d_dbl_ptr, d_parameters_ptr,
    height, width, pixel_stride, group_stride, part_stride, E, N, K, G, tile_pitch, chunks, first_group, groups,
    R: tl.constexpr, BR: tl.constexpr, T: tl.constexpr, BE: tl.constexpr, IMAGE: tl.constexpr, EVEN: tl.constexpr,
    FULL_DELTA: tl.constexpr, SOFTPLUS: tl.constexpr, SENSES: tl.constexpr, ADD: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """All gradients of one direction's chunk; adjoints holds what enters the chunk, and is used up.

    Per tile the states are scanned forward from tile_states and the adjoints backward, with the same exponentials.
    dx goes to the sense's own part, added to what another axis left there if ADD.
    """
    chunk = tl.program_id(1)
    slot = tl.program_id(2) % (SENSES * groups)
    b = (tl.program_id(2) // (SENSES * groups)).to(tl.int64)
    batch = tl.num_programs(2) // (SENSES * groups)
    sense = slot // groups
    group = first_group + slot % groups
    k = group + sense * G
    length, along, across, tile_count = line_geometry(group, height, width, pixel_stride, IMAGE, T)
    e, exists_e = block_channels(tl.program_id(0), E, BE)
    bias = tl.load(bias_ptr + k * E + e, mask=exists_e, other=0.0).to(tl.float32)
    D = tl.load(D_ptr + k * E + e, mask=exists_e, other=0.0).to(tl.float32)
    image = b * height * width * pixel_stride + group * group_stride
    dx_parts_ptr += sense * part_stride + image
    P = R + 2 * N
    dbl_ptr += (b * K + k) * tile_pitch * P * T
    d_dbl_ptr += ((tl.program_id(0) * batch + b) * (SENSES * groups) + slot) * tile_pitch * P * T
    adjoints_ptr += ((b * (SENSES * groups) + slot) * chunks + chunk) * N * E + e
    tile_states_ptr += (b * (SENSES * groups) + slot) * tile_pitch * N * E + e
    d_parameters_ptr += ((b * chunks + chunk) * (SENSES * groups) + slot) * (N + R + 2) * E
    A2_ptr += k * N * E + e
    dt_weight_ptr += k * R * E
    t = tl.arange(0, T)
    r = tl.arange(0, BR)
    both = tl.arange(0, 2 * T)
    column = tl.arange(0, 8)
    flat = tl.program_id(0) * BE + tl.arange(0, BE)
    d_bias = tl.zeros_like(bias)
    d_D = tl.zeros_like(bias)
    d_weight = tl.zeros([BE, BR], tl.float32)
    low, count = chunk_tiles(chunk, chunks, tile_count)
    for i in range(count):
        tile = tl.where(sense == 1, low + i, low + count - 1 - i)
        base, pixels, exists = tile_pixels(tile, sense == 1, length, along, across, EVEN, T)
        mask = exists[:, None, None] & exists_e[None, :, :]
        offsets = pixels[:, None, None] + e[None, :, :]
        base += image
        x = tl.load(x_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32)
        dbl = dbl_ptr + tile.to(tl.int64) * (P * T)
        d_dbl = d_dbl_ptr + tile.to(tl.int64) * (P * T)
        delta = tile_delta(
            dbl, delta_ptr + base, dt_weight_ptr, bias, e, exists_e, offsets, mask, E, R, T, FULL_DELTA, SOFTPLUS
        )
        delta_x = delta * x
        d_delta_x = tl.zeros_like(delta)
        d_exponent = tl.zeros_like(delta)
        tile_states = tile_states_ptr + tile.to(tl.int64) * N * E
        d_A_ptr = d_parameters_ptr + e
        for n in range(N):
            A2 = tl.load(A2_ptr + n * E, mask=exists_e, other=0.0)
            before = tl.load(tile_states + n * E, mask=exists_e, other=0.0).to(tl.float32)
            after = tl.load(adjoints_ptr + n * E, mask=exists_e, other=0.0)
            d_A = tl.load(d_A_ptr + n * E, mask=exists_e & (i > 0), other=0.0)
            B = tl.load(dbl + (R + n) * T + t)[:, None, None]
            C = tl.load(dbl + (R + N + n) * T + t)[:, None, None]
            decay = tl.exp2(delta * A2[None, :, :])
            inflow = delta_x * B
            carried = scan_carried(decay, inflow, before, T)
            h = carried + inflow
            g = scan_adjoints(decay, dy * C, after, T)
            tl.store(adjoints_ptr + n * E, row_of(decay * g, 0, T), mask=exists_e)
            d_delta_x += g * B
            through_decay = g * carried
            d_exponent += through_decay * A2[None, :, :]
            tl.store(d_A_ptr + n * E, d_A + tl.sum(through_decay * delta, 0), mask=exists_e)
            sums = sum_over_channels(g * delta_x, dy * h, T, PRECISION)
            place = (R + n) * T + tl.where(both < T, both, both - T + N * T)
            tl.store(
                d_dbl + place[:, None] + column[None, :] * 0,
                sums.to(d_dbl_ptr.dtype.element_ty),
                mask=(column == 0)[None, :] & (both >= 0)[:, None],
            )
        # Read again, from the cache: holding x through the loop above would cost 16 registers.
        x = tl.load(x_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32)
        d_v = LN_2 * d_exponent + x * d_delta_x
        if SOFTPLUS:
            d_v *= softplus_slope(delta)
        else:
            d_v = tl.where(mask, d_v, 0.0)
        d_bias += tl.sum(d_v, 0)
        d_D += tl.sum(dy * x, 0)
        if FULL_DELTA:
            tl.store(d_delta_ptr + base + offsets, d_v.to(d_delta_ptr.dtype.element_ty), mask=mask)
        else:
            weight = tl.load(
                dt_weight_ptr + r[:, None] * E + flat[None, :], mask=(r < R)[:, None] & (flat < E)[None, :], other=0.0
            )
            d_v = tl.trans(tl.reshape(d_v, (T, BE)))
            d_dt = tl.dot(weight, d_v, input_precision=PRECISION)
            tl.store(
                d_dbl + r[:, None] * T + t[None, :],
                d_dt.to(d_dbl_ptr.dtype.element_ty),
                mask=(r < R)[:, None] & (t >= 0)[None, :],
            )
            # A product over less than 16 pixels is not to be had: zeros in between make up for it.
            if T < 16:
                d_v = tl.reshape(tl.join(d_v, tl.zeros([BE, T], tl.float32)), (BE, 2 * T))
                t2 = both
                pixel = both // 2
            else:
                t2 = t
                pixel = t
            dt = tl.load(dbl + r[None, :] * T + pixel[:, None], mask=(r < R)[None, :] & (t2 >= 0)[:, None], other=0.0)
            d_weight += tl.dot(d_v, dt, input_precision=PRECISION)
        dx = D[None, :, :] * dy + delta * d_delta_x
        if ADD:
            dx += tl.load(dx_parts_ptr + base - image + offsets, mask=mask, other=0.0).to(tl.float32)
        tl.store(dx_parts_ptr + base - image + offsets, dx.to(dx_parts_ptr.dtype.element_ty), mask=mask)
    tl.store(d_parameters_ptr + (N + R) * E + e, d_bias, mask=exists_e)
    tl.store(d_parameters_ptr + (N + R + 1) * E + e, d_D, mask=exists_e)
    if not FULL_DELTA:
        mask = (r < R)[None, :] & (flat < E)[:, None]
        tl.store(d_parameters_ptr + (N + r)[None, :] * E + flat[:, None], d_weight, mask=mask)


@triton.jit
def gather_projections_kernel(
    d_dbl_ptr, d_projected_ptr, height, width, P, K, G, tile_pitch, parts, first_group, groups,
    BP: tl.constexpr, T: tl.constexpr, IMAGE: tl.constexpr, EVEN: tl.constexpr, SENSES: tl.constexpr,
):  # fmt: skip
    """The parts of d_dbl, summed -> d_projected (B, L, K P): the inverse of order_projections_kernel."""
    tile = tl.program_id(0)
    slot = tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    batch = tl.num_programs(2)
    sense = slot // groups
    group = first_group + slot % groups
    k = group + sense * G
    length, along, across, tile_count = line_geometry(group, height, width, K * P, IMAGE, T)
    if tile < tile_count:
        base, pixels, exists = tile_pixels(tile, sense == 1, length, along, across, EVEN, T)
        p = tl.arange(0, BP)
        t = tl.arange(0, T)
        total = tl.zeros([T, BP], tl.float32)
        for part in range(parts):
            place = (part * batch + b) * (SENSES * groups) + slot
            source = d_dbl_ptr + (place * tile_pitch + tile) * P * T
            total += tl.load(
                source + p[None, :] * T + t[:, None], mask=(p < P)[None, :] & (t >= 0)[:, None], other=0.0
            ).to(tl.float32)
        target = d_projected_ptr + b * height * width * K * P + base + k * P
        mask = exists[:, None] & (p < P)[None, :]
        tl.store(target + pixels[:, None] + p[None, :], total.to(d_projected_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["E"])
def sum_parameters_kernel(
    d_parameters_ptr, A2_ptr, d_A_ptr, d_weight_ptr, d_bias_ptr, d_D_ptr, parts, E, N, R, G, first_group, groups,
    SENSES: tl.constexpr, LOGS: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Sum d_parameters over its parts, in a fixed order, into the parameters' own layouts. LOGS: A = -exp(A_logs)."""
    rows = N + R + 2
    row = tl.program_id(1) % rows
    slot = tl.program_id(1) // rows
    k = first_group + slot % groups + slot // groups * G
    e = tl.program_id(0) * BE + tl.arange(0, BE)
    exists_e = e < E
    part = tl.arange(0, BC)
    total = tl.zeros([BE], tl.float32)
    for start in range(0, parts, BC):
        mask = (start + part < parts)[:, None] & exists_e[None, :]
        index = ((start + part).to(tl.int64)[:, None] * (SENSES * groups) + slot) * rows + row
        total += tl.sum(tl.load(d_parameters_ptr + index * E + e[None, :], mask=mask, other=0.0), 0)
    place = k * E + e
    if row < N:
        if LOGS:
            total *= tl.load(A2_ptr + (k * N + row) * E + e, mask=exists_e, other=0.0) * LN_2
        tl.store(d_A_ptr + place * N + row, total, mask=exists_e)
    elif row < N + R:
        tl.store(d_weight_ptr + place * R + row - N, total, mask=exists_e)
    elif row == N + R:
        tl.store(d_bias_ptr + place, total, mask=exists_e)
    else:
        tl.store(d_D_ptr + place, total, mask=exists_e)
