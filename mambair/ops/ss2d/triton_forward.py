"""Forward kernels of the chunked scan.

Shapes: B batch, K directions, G groups, L pixels, E channels of a group, N states, C chunks; a launch treats S of the K
directions (forward: all of them).

    x, y        (B, L, pixel stride)  channels of a pixel side by side; group g's start at g * group_stride
    delta       (B, L, S, E)          after softplus, see triton_prepare.py
    projected   (B L, K P)  dt, B, C of every direction, P = R + 2N
    A2          (K, EB, N, lanes)     A log2(e): exp(delta A) = exp2(delta A2); EB blocks of channels, zeros after E
    states      (B, C, K, EB, N, lanes)  fp32
    delta_sums  (B, C, K, EB lanes)   fp32 sum of delta over a chunk; the chunk multiplies a state by exp2(A2 sum)

The scanning kernels load a tile of places at once, and go through it place by place with all states in registers.
"""

import triton
import triton.language as tl

from mambair.ops.ss2d.triton_walk import (
    UNSPECIALIZED,
    bc_columns,
    block_channels,
    chunk_tiles,
    direction,
    exists_at,
    first_pixel,
    first_tile,
    line_geometry,
    load_rows,
    next_tile,
    state_places,
    to_all_lanes,
)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def scan_kernel(
    x_ptr, delta_ptr, projected_ptr, A2_ptr, D_ptr, states_ptr, delta_sums_ptr, last_ptr, parts_ptr,
    height, width, pixel_stride, group_stride, part_stride, E, EP, P, R, K, G, chunks,
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
    column, exists_bc = bc_columns(N, BN)
    x_ptr += b * height * width * pixel_stride + group * group_stride + e
    delta_ptr += (b * height * width * K + k) * E + e
    projected_ptr += (b * height * width * K + k) * P + R + column
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
    _, line, start = first_tile(low, count, turn, length, WIDE, T)
    step = turn * along
    for _ in range(count):
        pixel = first_pixel(line, start, sense, along, across, T)
        x = load_rows(x_ptr + pixel * pixel_stride, step * pixel_stride, exists_e, start, sense, length, EVEN, T)
        delta = load_rows(delta_ptr + pixel * (K * E), step * (K * E), exists_e, start, sense, length, EVEN, T)
        bc = load_rows(projected_ptr + pixel * (K * P), step * (K * P), exists_bc, start, sense, length, EVEN, T)
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


@triton.jit
def _load_chunks(
    states_ptr, delta_sums_ptr, A2, first, end, chunks, step, sums_step, descending, AT_ONCE: tl.constexpr
):  # fmt: skip
    """(addresses, states at their ends, decays) of AT_ONCE chunks of a direction from place `first` on, of those below
    `end`; all are on their way before the first is used. Where there is none, the state is 0 and the decay 1."""
    addresses, states, sums = (), (), ()
    for i in tl.static_range(AT_ONCE):
        place = first + i
        there = place < end
        chunk = tl.where(descending, chunks - 1 - place, place)
        addresses += (states_ptr + chunk * step,)
        states += (tl.load(states_ptr + chunk * step, mask=there, other=0.0),)
        sums += (tl.load(delta_sums_ptr + chunk * sums_step, mask=there, other=0.0),)
    decays = ()
    for i in tl.static_range(AT_ONCE):
        decays += (tl.exp2(sums[i] * A2),)
    return addresses, states, decays


@triton.jit(do_not_specialize=["E", "chunks"])
def pass_states_kernel(
    states_ptr, delta_sums_ptr, A2_ptr, initial_ptr, E, EP, K, G, chunks, first_group, groups,
    N: tl.constexpr, ROWS: tl.constexpr, SENSES: tl.constexpr, BACKWARD: tl.constexpr, INITIAL: tl.constexpr,
    RUNS: tl.constexpr, AT_ONCE: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """In place: each chunk's own contribution -> the state that enters the chunk.

    states_ptr is (B, C, S, EB, ROWS, lanes), of whose rows the first N are states. BACKWARD: the same for the gradients
    of states, which run against the direction. INITIAL: what enters the first chunk is in initial_ptr (B, K, N, E)
    instead of zero.

    A warp takes one of RUNS runs of chunks, first for what leaves it, then, unless there is but one run, again for what
    enters its chunks: as the scan itself goes through places.
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
    step, sums_step = slots * ROWS * EP, K * EP
    descending = (sense == 1) != BACKWARD
    if INITIAL:
        carry = tl.load(initial_ptr + ((b * K + k) * N + n) * E + e, mask=exists_e, other=0.0)
    else:
        carry = tl.zeros_like(A2)
    run = tl.arange(0, RUNS)[:, None, None]
    count = tl.cdiv(chunks, RUNS)
    first = run * count
    end = tl.minimum(first + count, chunks)
    if RUNS > 1:
        state = tl.zeros_like(first * A2)
        decay = state + 1.0
        for start in range(0, count, AT_ONCE):
            _, own, passed = _load_chunks(
                states_ptr, delta_sums_ptr, A2, first + start, end, chunks, step, sums_step, descending, AT_ONCE
            )  # fmt: skip
            for i in tl.static_range(AT_ONCE):
                state = passed[i] * state + own[i]
                decay *= passed[i]
        before = tl.where(run == 0, carry, 0.0)
        state += decay * before
        _, _, _, carry = tl.associative_scan((decay, tl.zeros_like(decay) + 1.0, state, before), 0, _chain_exclusive)
    for start in range(0, count, AT_ONCE):
        addresses, own, passed = _load_chunks(
            states_ptr, delta_sums_ptr, A2, first + start, end, chunks, step, sums_step, descending, AT_ONCE
        )  # fmt: skip
        for i in tl.static_range(AT_ONCE):
            place = first + start + i
            tl.store(addresses[i], carry, mask=place < end)
            carry = passed[i] * carry + own[i]


@triton.jit
def sum_parts_kernel(parts_ptr, sum_ptr, part_stride, size, parts: tl.constexpr, BLOCK: tl.constexpr):
    """Sum of `parts` tensors that lie part_stride apart, in fp32 and in their order."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < size
    total = tl.zeros([BLOCK], tl.float32)
    for part in tl.static_range(parts):
        total += tl.load(parts_ptr + part * tl.cast(part_stride, tl.int64) + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(sum_ptr + place, total.to(sum_ptr.dtype.element_ty), mask=mask)
