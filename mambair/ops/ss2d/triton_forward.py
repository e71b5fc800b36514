"""Forward kernels of the chunked scan.

Shapes: B batch, K directions, G groups, L pixels, E channels of a group, N states, C chunks; a launch treats S of the K
directions (forward: all of them).

    x, y        (B, L, pixel stride)  channels of a pixel side by side; group g's start at g * group_stride
    delta       (B, L, S, E)          after softplus, see triton_prepare.py
    tile_bc     (B, S, tiles, 2N, T)  fp32 B and C in each direction's own order, zero past a line's end
    A2          (K, EB, N, lanes)     A log2(e): exp(delta A) = exp2(delta A2); EB blocks of channels, zeros after E
    states      (B, C, K, EB, N, lanes)  fp32
    delta_sums  (B, C, K, EB lanes)   fp32 sum of delta over a chunk; the chunk multiplies a state by exp2(A2 sum)

The scanning kernels load a tile of places at once, and go through it place by place with all states in registers.
"""

import triton
import triton.language as tl

from mambair.ops.ss2d.triton_walk import (
    UNSPECIALIZED,
    bc_of,
    block_channels,
    chunk_tiles,
    direction,
    exists_at,
    first_pixel,
    first_tile,
    line_geometry,
    load_rows,
    next_tile,
    row_of,
    state_places,
    to_all_lanes,
)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def scan_kernel(
    x_ptr, delta_ptr, tile_bc_ptr, A2_ptr, D_ptr, states_ptr, delta_sums_ptr, last_ptr, parts_ptr,
    height, width, pixel_stride, group_stride, part_stride, E, EP, K, G, chunks, tile_pitch,
    N: tl.constexpr, BN: tl.constexpr, T: tl.constexpr, BE: tl.constexpr, IMAGE: tl.constexpr, EVEN: tl.constexpr,
    WIDE: tl.constexpr, OUTPUTS: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """One direction's chunk: the first time (not OUTPUTS) from a state of zero, for the state at its end and the sum of
    its delta; the second time from the state that enters it, for y. Direction k writes y to parts_ptr + k part_stride.

    LAST: the state that leaves the last chunk of every direction goes to last_ptr (B, K, N, E).
    """
    chunk = tl.program_id(1)
    b = (tl.program_id(2) // K).to(tl.int64)
    group, sense, k = direction(tl.program_id(2) % K, 0, G, G)
    length, line_count, along, across = line_geometry(group, height, width, IMAGE)
    e, exists_e = block_channels(tl.program_id(0), E, BE)
    n = tl.arange(0, BN)[:, None, None]
    live = n < N
    x_ptr += b * height * width * pixel_stride + group * group_stride + e
    delta_ptr += (b * height * width * K + k) * E + e
    parts_ptr += k.to(tl.int64) * part_stride + b * height * width * pixel_stride + group * group_stride + e
    places = state_places(tl.program_id(0), n, BE, N)
    chunk_index = (b * chunks + chunk) * K + k
    states_ptr += chunk_index * N * EP + places
    A2 = tl.load(A2_ptr + k * N * EP + places, mask=live, other=0.0)
    h = tl.zeros_like(A2)
    total = tl.zeros_like(e).to(tl.float32)
    if OUTPUTS:
        h = tl.load(states_ptr, mask=live, other=0.0)
        D = tl.load(D_ptr + k * E + e, mask=exists_e, other=0.0).to(tl.float32)
    low, count = chunk_tiles(chunk, chunks, line_count * tl.cdiv(length, T))
    turn = tl.where(sense == 1, -1, 1)
    tile, line, start = first_tile(low, count, turn, length, WIDE, T)
    tile_bc_ptr += ((b * K + k) * tile_pitch + tile) * (2 * N * T)
    step = turn * along
    for _ in range(count):
        pixel = first_pixel(line, start, sense, along, across, T)
        x = load_rows(x_ptr + pixel * pixel_stride, step * pixel_stride, exists_e, start, sense, length, EVEN, T)
        delta = load_rows(delta_ptr + pixel * (K * E), step * (K * E), exists_e, start, sense, length, EVEN, T)
        bc = bc_of(tile_bc_ptr, N, BN, T)
        y_ptr = parts_ptr + pixel * pixel_stride
        for t in tl.static_range(T):
            x_t = x[t].to(tl.float32)
            delta_t = delta[t].to(tl.float32)
            B, C = to_all_lanes(bc[t], BN)
            total += delta_t
            h = tl.where(live, tl.exp2(delta_t * A2) * h + (delta_t * x_t) * B, 0.0)
            if OUTPUTS:
                # Adding -0.0 is no operation for the compiler, adding 0.0 is one.
                y = tl.sum(tl.where(live, C * h, -0.0), 0, keep_dims=True) + D * x_t
                exists = exists_at(t, start, sense, length, EVEN, T)
                tl.store(y_ptr, y.to(parts_ptr.dtype.element_ty), mask=exists_e & exists)
                y_ptr += step * pixel_stride
        tile_bc_ptr += turn * (2 * N * T)
        line, start = next_tile(line, start, turn, length, T)
    if not OUTPUTS:
        tl.store(states_ptr, h, mask=live)
        tl.store(delta_sums_ptr + chunk_index * EP + e, total)
    if LAST:  # noqa: SIM102 (the first is decided when the kernel is compiled)
        if chunk == tl.where(sense == 1, 0, chunks - 1):
            tl.store(last_ptr + ((b * K + k) * N + n) * E + e, h, mask=live & exists_e)


@triton.jit
def _chain_exclusive(decay_1, inner_1, state_1, before_1, decay_2, inner_2, state_2, before_2):
    # `before`: the state before a run's last element; `inner`: the product of the decays before that element.
    return decay_1 * decay_2, decay_1 * inner_2, decay_2 * state_1 + state_2, inner_2 * state_1 + before_2


@triton.jit(do_not_specialize=["E", "chunks"])
def pass_states_kernel(
    states_ptr, delta_sums_ptr, A2_ptr, initial_ptr, E, EP, K, G, chunks, first_group, groups,
    N: tl.constexpr, ROWS: tl.constexpr, SENSES: tl.constexpr, BACKWARD: tl.constexpr, INITIAL: tl.constexpr,
    BC: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """In place: each chunk's own contribution -> the state that enters the chunk.

    states_ptr is (B, C, S, EB, ROWS, lanes), of whose rows the first N are states. BACKWARD: the same for the gradients
    of states, which run against the direction. INITIAL: what enters the first chunk is in initial_ptr (B, K, N, E)
    instead of zero.
    """
    n = tl.program_id(1)
    slots = SENSES * groups
    slot = tl.program_id(2) % slots
    b = (tl.program_id(2) // slots).to(tl.int64)
    _group, sense, k = direction(slot, first_group, groups, G)
    e, exists_e = block_channels(tl.program_id(0), E, BE)
    A2 = tl.load(A2_ptr + k * N * EP + state_places(tl.program_id(0), n, BE, N))
    states_ptr += (b * chunks * slots + slot) * ROWS * EP + state_places(tl.program_id(0), n, BE, ROWS)
    delta_sums_ptr += (b * chunks * K + k) * EP + e
    descending = (sense == 1) != BACKWARD
    if INITIAL:
        carry = tl.load(initial_ptr + ((b * K + k) * N + n) * E + e, mask=exists_e, other=0.0)
    else:
        carry = tl.zeros_like(A2)
    step = tl.arange(0, BC)
    first = (step == 0)[:, None, None]
    for start in range(0, chunks, BC):
        place = start + step
        chunk = tl.where(descending, chunks - 1 - place, place)[:, None, None]
        mask = (place < chunks)[:, None, None]
        own = tl.load(states_ptr + chunk * slots * ROWS * EP, mask=mask, other=0.0)
        decay = tl.exp2(tl.load(delta_sums_ptr + chunk * K * EP, mask=mask, other=0.0) * A2)
        ones = tl.full(own.shape, 1.0, tl.float32)
        own = tl.where(first, decay * carry + own, own)
        before = tl.where(first, carry, 0.0)
        _, _, after, entering = tl.associative_scan((decay, ones, own, before), 0, _chain_exclusive)
        tl.store(states_ptr + chunk * slots * ROWS * EP, entering, mask=mask)
        carry = row_of(after, BC - 1, BC)


@triton.jit
def sum_parts_kernel(parts_ptr, sum_ptr, part_stride, size, parts: tl.constexpr, BLOCK: tl.constexpr):
    """Sum of `parts` tensors that lie part_stride apart, in fp32 and in their order."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < size
    total = tl.zeros([BLOCK], tl.float32)
    for part in tl.static_range(parts):
        total += tl.load(parts_ptr + part * tl.cast(part_stride, tl.int64) + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(sum_ptr + place, total.to(sum_ptr.dtype.element_ty), mask=mask)
