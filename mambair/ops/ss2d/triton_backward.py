"""Backward kernels of the chunked scan; triton_forward.py has the legend of the shapes.

    adjoints        (B, K, C, N, E)            decay[t] g[t] that leaves a chunk against its direction; g = dLoss/dh
    tile_states     (B, group, sense, tiles, N, E)  the state that enters each tile but a chunk's first, recomputed
    d_dbl           (EB, B, group, sense, tiles, P, T)  gradient of dbl, one part per block of channels
    d_parameters    (B C, K, N + R + 2, E)     rows A, dt weight, bias, D; one part per chunk
"""

import triton
import triton.language as tl

from mambair.ops.ss2d.triton_tile import (
    LN_2,
    chunk_tiles,
    delta_argument,
    delta_of,
    line_geometry,
    row_of,
    scan_adjoints,
    scan_carried,
    scan_states,
    softplus_slope,
    tile_pixels,
)


@triton.jit
def chunk_adjoints_kernel(
    x_ptr, dy_ptr, delta_ptr, dbl_ptr, A2_ptr, dt_weight_ptr, bias_ptr, states_ptr, tile_states_ptr, adjoints_ptr,
    height, width, pixel_stride, group_stride, E, N, K, G, tile_pitch, chunks, first_group, groups,
    R: tl.constexpr, T: tl.constexpr, BE: tl.constexpr, IMAGE: tl.constexpr, FULL_DELTA: tl.constexpr,
    SOFTPLUS: tl.constexpr, SENSES: tl.constexpr,
):  # fmt: skip
    """tile_states, and each chunk's own contribution to its adjoint.

    One pass over the states serves both, since the decay since the chunk's start, which weights C dy in the adjoint,
    is the running product that the scan yields anyway: one exponential per state instead of two.
    """
    chunk = tl.program_id(1)
    sense = tl.program_id(2) % SENSES
    local_group = tl.program_id(2) // SENSES % groups
    b = (tl.program_id(2) // (SENSES * groups)).to(tl.int64)
    group = first_group + local_group
    k = group + sense * G
    length, along, across, tile_count = line_geometry(group, height, width, pixel_stride, IMAGE, T)
    e = tl.program_id(0) * BE + tl.arange(0, BE)
    exists_e = e < E
    bias = tl.load(bias_ptr + k * E + e, mask=exists_e, other=0.0).to(tl.float32)
    image = b * height * width * pixel_stride + group * group_stride
    P = R + 2 * N
    dbl_ptr += (b * K + k) * tile_pitch * P * T
    states_ptr += ((b * K + k) * chunks + chunk) * N * E + e
    adjoints_ptr += ((b * K + k) * chunks + chunk) * N * E + e
    tile_states_ptr += ((b * groups + local_group) * SENSES + sense) * tile_pitch * N * E + e
    A2_ptr += k * N * E + e
    t = tl.arange(0, T)
    passed = tl.zeros([BE], tl.float32)
    low, count = chunk_tiles(chunk, chunks, tile_count)
    step = tl.where(sense == 1, -1, 1)
    for i in range(count):
        tile = tl.where(sense == 1, low + count - 1 - i, low + i)
        base, pixels, exists = tile_pixels(tile, sense == 1, length, along, across, T)
        mask = exists[:, None] & exists_e[None, :]
        offsets = pixels[:, None] + e[None, :]
        base += image
        x = tl.load(x_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32)
        dbl = dbl_ptr + tile.to(tl.int64) * (P * T)
        v = delta_argument(
            dbl, delta_ptr + base, dt_weight_ptr + k * R * E, bias, e, exists_e, offsets, mask, E, R, T, FULL_DELTA
        )
        delta = delta_of(v, mask, SOFTPLUS)
        delta_x = delta * x
        here = tile_states_ptr + tile.to(tl.int64) * N * E
        ahead = tile_states_ptr + (tile + step).to(tl.int64) * N * E
        entering = tl.where(i > 0, here, states_ptr)
        for n in range(N):
            A2 = tl.load(A2_ptr + n * E, mask=exists_e, other=0.0)
            before = tl.load(entering + n * E, mask=exists_e, other=0.0)
            gathered = tl.load(adjoints_ptr + n * E, mask=exists_e & (i > 0), other=0.0)
            B = tl.load(dbl + (R + n) * T + t)
            C = tl.load(dbl + (R + N + n) * T + t)
            decay, h = scan_states(tl.exp2(delta * A2[None, :]), delta_x * B[:, None], before, T)
            own = tl.sum(decay * (dy * C[:, None]), 0)
            tl.store(adjoints_ptr + n * E, gathered + tl.exp2(passed * A2) * own, mask=exists_e)
            tl.store(ahead + n * E, row_of(h, T - 1, T), mask=exists_e & (i + 1 < count))
        passed += tl.sum(delta, 0)


@triton.jit
def sum_over_channels(first, second, T: tl.constexpr, BE: tl.constexpr, PRECISION: tl.constexpr):
    """Row sums of two (T, BE) tiles as one product with ones: (2 T, 8), every column the same.

    Shuffles would take 5 per value; staging both tiles through shared memory for the tensor cores takes half of one.
    """
    both = tl.reshape(tl.permute(tl.join(first, second), (2, 0, 1)), (2 * T, BE))
    return tl.dot(both, tl.full([BE, 8], 1.0, tl.float32), input_precision=PRECISION)


@triton.jit
def gradients_kernel(
    x_ptr, dy_ptr, delta_ptr, dbl_ptr, A2_ptr, dt_weight_ptr, bias_ptr, D_ptr, states_ptr, tile_states_ptr,
    adjoints_ptr, sum_ptr, dx_ptr, d_delta_ptr, d_dbl_ptr, d_parameters_ptr,
    height, width, pixel_stride, group_stride, E, N, K, G, tile_pitch, chunks, first_group, groups,
    R: tl.constexpr, BR: tl.constexpr, T: tl.constexpr, BE: tl.constexpr, IMAGE: tl.constexpr,
    FULL_DELTA: tl.constexpr, SOFTPLUS: tl.constexpr, SENSES: tl.constexpr, ADD: tl.constexpr, FINISH: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """All gradients of one chunk in both senses of its axis; adjoints holds what enters the chunk, and is used up.

    Per tile the states are scanned forward from tile_states and the adjoints backward, with the same exponentials.
    dx is summed over directions as outputs_kernel sums y.
    """
    chunk = tl.program_id(1)
    local_group = tl.program_id(2) % groups
    b = (tl.program_id(2) // groups).to(tl.int64)
    batch = tl.num_programs(2) // groups
    group = first_group + local_group
    length, along, across, tile_count = line_geometry(group, height, width, pixel_stride, IMAGE, T)
    e = tl.program_id(0) * BE + tl.arange(0, BE)
    exists_e = e < E
    image = b * height * width * pixel_stride + group * group_stride
    P = R + 2 * N
    t = tl.arange(0, T)
    r = tl.arange(0, BR)
    both = tl.arange(0, 2 * T)
    column = tl.arange(0, 8)
    low, count = chunk_tiles(chunk, chunks, tile_count)
    for sense in range(SENSES):
        k = group + sense * G
        bias = tl.load(bias_ptr + k * E + e, mask=exists_e, other=0.0).to(tl.float32)
        D = tl.load(D_ptr + k * E + e, mask=exists_e, other=0.0).to(tl.float32)
        state = ((b * K + k) * chunks + chunk) * N * E + e
        part = tl.program_id(0) * batch + b
        d_dbl_k = d_dbl_ptr + ((part * groups + local_group) * SENSES + sense) * tile_pitch * P * T
        tile_states = tile_states_ptr + ((b * groups + local_group) * SENSES + sense) * tile_pitch * N * E + e
        d_parameters = d_parameters_ptr + ((b * chunks + chunk) * K + k) * (N + R + 2) * E + e
        d_bias = tl.zeros([BE], tl.float32)
        d_D = tl.zeros([BE], tl.float32)
        d_weight = tl.zeros([BE, BR], tl.float32)
        for i in range(count):
            tile = tl.where(sense == 1, low + i, low + count - 1 - i)
            base, pixels, exists = tile_pixels(tile, sense == 1, length, along, across, T)
            mask = exists[:, None] & exists_e[None, :]
            offsets = pixels[:, None] + e[None, :]
            base += image
            x = tl.load(x_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32)
            dy = tl.load(dy_ptr + base + offsets, mask=mask, other=0.0).to(tl.float32)
            dbl = dbl_ptr + ((b * K + k) * tile_pitch + tile) * (P * T)
            d_dbl = d_dbl_k + tile.to(tl.int64) * (P * T)
            v = delta_argument(
                dbl, delta_ptr + base, dt_weight_ptr + k * R * E, bias, e, exists_e, offsets, mask, E, R, T, FULL_DELTA
            )
            delta = delta_of(v, mask, SOFTPLUS)
            delta_x = delta * x
            d_delta_x = tl.zeros([T, BE], tl.float32)
            d_exponent = tl.zeros([T, BE], tl.float32)
            entering = tl.where(i == count - 1, states_ptr + state, tile_states + tile.to(tl.int64) * N * E)
            for n in range(N):
                A2 = tl.load(A2_ptr + (k * N + n) * E + e, mask=exists_e, other=0.0)
                before = tl.load(entering + n * E, mask=exists_e, other=0.0)
                after = tl.load(adjoints_ptr + state + n * E, mask=exists_e, other=0.0)
                d_A = tl.load(d_parameters + n * E, mask=exists_e & (i > 0), other=0.0)
                B = tl.load(dbl + (R + n) * T + t)[:, None]
                C = tl.load(dbl + (R + N + n) * T + t)[:, None]
                decay = tl.exp2(delta * A2[None, :])
                inflow = delta_x * B
                carried = scan_carried(decay, inflow, before, T)
                h = carried + inflow
                g = scan_adjoints(decay, dy * C, after, T)
                tl.store(adjoints_ptr + state + n * E, row_of(decay * g, 0, T), mask=exists_e)
                d_delta_x += g * B
                through_decay = g * carried
                d_exponent += through_decay * A2[None, :]
                tl.store(d_parameters + n * E, d_A + tl.sum(through_decay * delta, 0), mask=exists_e)
                sums = sum_over_channels(g * delta_x, dy * h, T, BE, PRECISION)
                place = (R + n) * T + tl.where(both < T, both, both - T + N * T)
                tl.store(
                    d_dbl + place[:, None] + column[None, :] * 0,
                    sums.to(d_dbl_ptr.dtype.element_ty),
                    mask=(column == 0)[None, :] & (both >= 0)[:, None],
                )
            d_v = LN_2 * d_exponent + x * d_delta_x
            if SOFTPLUS:
                d_v *= softplus_slope(v)
            d_v = tl.where(mask, d_v, 0.0)
            d_bias += tl.sum(d_v, 0)
            d_D += tl.sum(dy * x, 0)
            if FULL_DELTA:
                tl.store(d_delta_ptr + base + offsets, d_v.to(d_delta_ptr.dtype.element_ty), mask=mask)
            else:
                weight = tl.load(
                    dt_weight_ptr + (k * R + r)[None, :] * E + e[:, None],
                    mask=(r < R)[None, :] & exists_e[:, None],
                    other=0.0,
                )
                dt = tl.load(dbl + r[None, :] * T + t[:, None], mask=(r < R)[None, :] & (t >= 0)[:, None], other=0.0)
                d_dt = tl.dot(d_v, weight, input_precision=PRECISION)
                d_weight += tl.dot(tl.trans(d_v), dt, input_precision=PRECISION)
                tl.store(
                    d_dbl + r[None, :] * T + t[:, None],
                    d_dt.to(d_dbl_ptr.dtype.element_ty),
                    mask=(r < R)[None, :] & (t >= 0)[:, None],
                )
            dx = D[None, :] * dy + delta * d_delta_x
            if ADD or sense > 0:
                dx += tl.load(sum_ptr + base + offsets, mask=mask, other=0.0)
            if FINISH and sense == SENSES - 1:
                tl.store(dx_ptr + base + offsets, dx.to(dx_ptr.dtype.element_ty), mask=mask)
            else:
                tl.store(sum_ptr + base + offsets, dx, mask=mask)
        tl.store(d_parameters + (N + R) * E, d_bias, mask=exists_e)
        tl.store(d_parameters + (N + R + 1) * E, d_D, mask=exists_e)
        if not FULL_DELTA:
            tl.store(
                d_parameters_ptr + ((b * chunks + chunk) * K + k) * (N + R + 2) * E + (N + r)[None, :] * E + e[:, None],
                d_weight,
                mask=(r < R)[None, :] & exists_e[:, None],
            )


@triton.jit
def gather_projections_kernel(
    d_dbl_ptr, d_projected_ptr, height, width, P, K, G, tile_pitch, parts, first_group, groups,
    BP: tl.constexpr, T: tl.constexpr, IMAGE: tl.constexpr, SENSES: tl.constexpr,
):  # fmt: skip
    """The parts of d_dbl, summed -> d_projected (B, L, K P): the inverse of order_projections_kernel."""
    tile = tl.program_id(0)
    sense = tl.program_id(1) % SENSES
    local_group = tl.program_id(1) // SENSES
    b = tl.program_id(2).to(tl.int64)
    batch = tl.num_programs(2)
    group = first_group + local_group
    k = group + sense * G
    length, along, across, tile_count = line_geometry(group, height, width, K * P, IMAGE, T)
    if tile < tile_count:
        base, pixels, exists = tile_pixels(tile, sense == 1, length, along, across, T)
        p = tl.arange(0, BP)
        t = tl.arange(0, T)
        total = tl.zeros([T, BP], tl.float32)
        for part in range(parts):
            place = ((part * batch + b) * groups + local_group) * SENSES + sense
            source = d_dbl_ptr + (place * tile_pitch + tile) * P * T
            total += tl.load(
                source + p[None, :] * T + t[:, None], mask=(p < P)[None, :] & (t >= 0)[:, None], other=0.0
            ).to(tl.float32)
        target = d_projected_ptr + b * height * width * K * P + base + k * P
        mask = exists[:, None] & (p < P)[None, :]
        tl.store(target + pixels[:, None] + p[None, :], total.to(d_projected_ptr.dtype.element_ty), mask=mask)


@triton.jit
def sum_parameters_kernel(
    d_parameters_ptr, A2_ptr, d_A_ptr, d_weight_ptr, d_bias_ptr, d_D_ptr, parts, E, N, R, K,
    LOGS: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Sum d_parameters over its parts, in a fixed order, into the parameters' own layouts. LOGS: A = -exp(A_logs)."""
    rows = N + R + 2
    row = tl.program_id(1) % rows
    k = tl.program_id(1) // rows
    e = tl.program_id(0) * BE + tl.arange(0, BE)
    exists_e = e < E
    part = tl.arange(0, BC)
    total = tl.zeros([BE], tl.float32)
    for start in range(0, parts, BC):
        mask = (start + part < parts)[:, None] & exists_e[None, :]
        index = ((start + part).to(tl.int64)[:, None] * K + k) * rows + row
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
