"""Backward kernels of the chunked scan; triton_forward.py and triton_prepare.py have the legend of the shapes.

One launch treats S directions: both senses of its groups, all forward ones first.

    running       (B, C, S, EB, 2N + 1, lanes)  what is carried from tile to tile of a chunk, a row per state: adjoints,
                                         decay[t] g[t] that enters a tile against its direction, where g = dLoss/dh;
                                         then gradients of A; and one row of gradients of D
    tile_states   (B, S, tiles, EB, N, lanes)  the state that enters each tile, recomputed
    dx_parts      (senses, B, L, pixel stride)
    d_v           (B L, S, E)                gradient of delta before softplus; may lie where delta lies
    d_bc          (EB, B, S, tiles, 2N, T)   gradient of B and C, one part per block of channels
"""

import triton
import triton.language as tl

from mambair.ops.ss2d.triton_prepare import softplus_slope
from mambair.ops.ss2d.triton_sums import store_sums, store_sums_by_matrices, sum_operands
from mambair.ops.ss2d.triton_walk import (
    LANES,
    UNSPECIALIZED,
    bc_columns,
    block_channels,
    chunk_tiles,
    direction,
    fetch_run,
    first_pixel,
    first_tile,
    line_geometry,
    load_rows,
    load_tile,
    next_tile,
    reversed_rows,
    row_of,
    state_places,
    store_tile,
    to_all_lanes,
)

LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def chunk_adjoints_kernel(
    x_ptr, dy_ptr, delta_ptr, projected_ptr, A2_ptr, states_ptr, tile_states_ptr, running_ptr,
    height, width, pixel_stride, group_stride, E, EP, P, R, K, G, chunks, first_group, groups, tile_pitch,
    N: tl.constexpr, BN: tl.constexpr, T: tl.constexpr, BE: tl.constexpr, IMAGE: tl.constexpr, EVEN: tl.constexpr,
    WIDE: tl.constexpr, SENSES: tl.constexpr,
):  # fmt: skip
    """tile_states, each chunk's own contribution to its adjoint, and zeros for its gradient of A.

    One pass over the states serves both, since the decay since the chunk's start, which weights C dy in the adjoint,
    comes from the same exponentials.
    """
    chunk = tl.program_id(1)
    slots = SENSES * groups
    slot = tl.program_id(2) % slots
    b = (tl.program_id(2) // slots).to(tl.int64)
    group, sense, k = direction(slot, first_group, groups, G)
    length, line_count, along, across = line_geometry(group, height, width, IMAGE)
    e, exists_e = block_channels(tl.program_id(0), E, BE)
    n = tl.arange(0, BN)[:, None, None]
    live = n < N
    column, exists_bc = bc_columns(N, BN)
    places = state_places(tl.program_id(0), n, BE, N)
    image = b * height * width * pixel_stride + group * group_stride
    x_ptr += image + e
    dy_ptr += image + e
    delta_ptr += (b * height * width * slots + slot) * E + e
    projected_ptr += (b * height * width * K + k) * P + R + column
    A2 = tl.load(A2_ptr + k * N * EP + places, mask=live, other=0.0)
    h = tl.load(states_ptr + ((b * chunks + chunk) * K + k) * N * EP + places, mask=live, other=0.0)
    passed = tl.full(A2.shape, 1.0, tl.float32)
    adjoint = tl.zeros_like(A2)
    low, count = chunk_tiles(chunk, chunks, line_count * tl.cdiv(length, T))
    turn = tl.where(sense == 1, -1, 1)
    tile, line, start = first_tile(low, count, turn, length, WIDE, T)
    tile_states_ptr += ((b * slots + slot) * tile_pitch + tile) * N * EP + places
    step = turn * along
    for _ in range(count):
        pixel = first_pixel(line, start, sense, along, across, T)
        place, x_step = pixel * pixel_stride, step * pixel_stride
        x = load_rows(x_ptr + place, x_step, exists_e, start, sense, length, EVEN, T)
        dy = load_rows(dy_ptr + place, x_step, exists_e, start, sense, length, EVEN, T)
        delta = load_rows(delta_ptr + pixel * (slots * E), step * (slots * E), exists_e, start, sense, length, EVEN, T)
        bc = load_rows(projected_ptr + pixel * (K * P), step * (K * P), exists_bc, start, sense, length, EVEN, T)
        tl.store(tile_states_ptr, h.to(tile_states_ptr.dtype.element_ty), mask=live)
        for t in tl.static_range(T):
            delta_t = delta[t].to(tl.float32)
            B, C = to_all_lanes(bc[t], BN)
            decay = tl.exp2(delta_t * A2)
            h = tl.where(live, decay * h + (delta_t * x[t].to(tl.float32)) * B, 0.0)
            passed = tl.where(live, passed * decay, 1.0)
            adjoint = tl.where(live, adjoint + passed * (dy[t].to(tl.float32) * C), 0.0)
        tile_states_ptr += turn * N * EP
        line, start = next_tile(line, start, turn, length, T)
    ROWS: tl.constexpr = 2 * N + 1
    running_ptr += ((b * chunks + chunk) * slots + slot) * ROWS * EP + state_places(tl.program_id(0), n, BE, ROWS)
    tl.store(running_ptr, adjoint, mask=live)
    tl.store(running_ptr + N * LANES, tl.zeros_like(adjoint), mask=live)


@triton.jit
def _chain_split(decay_1, carried_1, inflow_1, decay_2, carried_2, inflow_2):
    return decay_1 * decay_2, decay_2 * (carried_1 + inflow_1) + carried_2, inflow_2


@triton.jit
def scan_carried(decay, inflow, before, T: tl.constexpr):
    """decay[t] h[t-1] of h[t] = decay[t] h[t-1] + inflow[t]: h[t] - inflow[t] without cancellation for small decay."""
    first = (tl.arange(0, T) == 0)[:, None, None]
    # Adding -0.0 is no operation for the compiler, adding 0.0 is one.
    carried = tl.where(first, decay * before, -0.0)
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
    inflow = tl.where(last, inflow + after, inflow)
    ones = tl.full(decay.shape, 1.0, tl.float32)
    backwards = (reversed_rows(decay, T), ones, reversed_rows(inflow, T))
    _, _, g = tl.associative_scan(backwards, 0, _chain_shifted)
    return reversed_rows(g, T)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def gradients_kernel(
    x_ptr, dy_ptr, delta_ptr, tile_bc_ptr, A2_ptr, D_ptr, tile_states_ptr, running_ptr, dx_parts_ptr, d_v_ptr, d_bc_ptr,
    height, width, pixel_stride, group_stride, part_stride, E, EP, G, chunks, first_group, groups, tile_pitch,
    N: tl.constexpr, T: tl.constexpr, BE: tl.constexpr, IMAGE: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr,
    SENSES: tl.constexpr, SOFTPLUS: tl.constexpr, ADD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All gradients of one direction's chunk; `running` holds the adjoint that enters the chunk.

    Per tile the states are scanned forward from tile_states and the adjoints backward, with the same exponentials.
    dx goes to the sense's own part, added to what another axis left there if ADD.
    """
    chunk = tl.program_id(1)
    slots = SENSES * groups
    slot = tl.program_id(2) % slots
    b = (tl.program_id(2) // slots).to(tl.int64)
    batch = tl.num_programs(2) // slots
    group, sense, k = direction(slot, first_group, groups, G)
    length, line_count, along, across = line_geometry(group, height, width, IMAGE)
    e, exists_e = block_channels(tl.program_id(0), E, BE)
    D = tl.load(D_ptr + k * E + e, mask=exists_e, other=0.0).to(tl.float32)
    lane = tl.arange(0, LANES)[None, None, :]
    image = b * height * width * pixel_stride + group * group_stride + e
    x_ptr += image
    dy_ptr += image
    dx_parts_ptr += sense * part_stride + image
    delta_ptr += (b * height * width * slots + slot) * E + e
    d_v_ptr += (b * height * width * slots + slot) * E + e
    states = tl.program_id(0) * (N * LANES)
    A2_ptr += k * N * EP + states + lane
    ROWS: tl.constexpr = 2 * N + 1
    running_ptr += ((b * chunks + chunk) * slots + slot) * ROWS * EP + tl.program_id(0) * (ROWS * LANES) + lane
    STATE_BYTES: tl.constexpr = 2 if tile_states_ptr.dtype.element_ty == tl.bfloat16 else 4
    even, odd, lower, last = sum_operands()
    d_D = tl.zeros_like(D)
    low, count = chunk_tiles(chunk, chunks, line_count * tl.cdiv(length, T))
    turn = tl.where(sense == 1, 1, -1)  # against the direction
    tile, line, start = first_tile(low, count, turn, length, WIDE, T)
    tile_bc_ptr += ((b * slots + slot) * tile_pitch + tile) * (2 * N * T)
    tile_states_ptr += ((b * slots + slot) * tile_pitch + tile) * N * EP + states
    d_bc_ptr += (((tl.program_id(0) * batch + b) * slots + slot) * tile_pitch + tile) * (2 * N * T)
    x_step, v_step = -turn * along * pixel_stride, -turn * along * (slots * E)
    t = tl.arange(0, T)
    for i in range(count):
        pixel = first_pixel(line, start, sense, along, across, T)
        place, place_v = pixel * pixel_stride, pixel * (slots * E)
        x = load_tile(x_ptr + place, x_step, exists_e, start, sense, length, EVEN, T)
        dy = load_tile(dy_ptr + place, x_step, exists_e, start, sense, length, EVEN, T)
        delta = load_tile(delta_ptr + place_v, v_step, exists_e, start, sense, length, EVEN, T)
        # What every state of the next tile reads is on its way from here on.
        following = tl.where(i + 1 < count, turn, 0)
        fetch_run(tile_bc_ptr + following * (2 * N * T), 2 * N * T * 4)
        fetch_run(tile_states_ptr + following * N * EP, STATE_BYTES * N * LANES)
        tile_states = tile_states_ptr + lane
        delta_x = delta * x
        d_delta_x = tl.zeros_like(delta)
        d_exponent = tl.zeros_like(delta)
        for n in range(N):
            A2 = tl.load(A2_ptr + n * LANES)
            before = tl.load(tile_states + n * LANES).to(tl.float32)
            after = tl.load(running_ptr + n * LANES)
            d_A = tl.load(running_ptr + (N + n) * LANES)
            B = tl.load(tile_bc_ptr + n * T + t)[:, None, None]
            C = tl.load(tile_bc_ptr + (N + n) * T + t)[:, None, None]
            decay = tl.exp2(delta * A2)
            inflow = delta_x * B
            carried = scan_carried(decay, inflow, before, T)
            h = carried + inflow
            g = scan_adjoints(decay, dy * C, after, T)
            tl.store(running_ptr + n * LANES, row_of(decay * g, 0, T))
            d_delta_x += g * B
            through_decay = g * carried
            d_exponent += through_decay * A2
            tl.store(running_ptr + (N + n) * LANES, d_A + tl.sum(through_decay * delta, 0, keep_dims=True))
            if PRECISION == "bf16":
                store_sums_by_matrices(d_bc_ptr + n * T, N * T, g * delta_x, dy * h, even, odd, lower, last, T)
            else:
                store_sums(d_bc_ptr + n * T, N * T, g * delta_x, dy * h, T, PRECISION)
        # Read again, from the cache: holding x through the loop above would cost T registers.
        x = load_tile(x_ptr + place, x_step, exists_e, start, sense, length, EVEN, T)
        d_v = LN_2 * d_exponent + x * d_delta_x
        if SOFTPLUS:
            d_v *= softplus_slope(delta, delta_ptr.dtype.element_ty)
        d_D += tl.sum(dy * x, 0, keep_dims=True)
        store_tile(d_v_ptr + place_v, v_step, d_v, exists_e, start, sense, length, EVEN, T)
        dx = D * dy + delta * d_delta_x
        if ADD:
            dx += load_tile(dx_parts_ptr + place, x_step, exists_e, start, sense, length, EVEN, T)
        store_tile(dx_parts_ptr + place, x_step, dx, exists_e, start, sense, length, EVEN, T)
        tile_bc_ptr += turn * (2 * N * T)
        d_bc_ptr += turn * (2 * N * T)
        tile_states_ptr += turn * N * EP
        line, start = next_tile(line, start, turn, length, T)
    tl.store(running_ptr + 2 * N * LANES, d_D)
