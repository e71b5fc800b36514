"""Forward kernels of the chunked scan.

Shapes: B batch, K directions, G groups of directions that share an axis, L pixels, E channels, N states, R rank of
delta, P = R + 2N projected values per pixel, T pixels per tile, BE channels per program, C chunks of tiles.

    x, y        (B, L, pixel stride)  channels of a pixel side by side; group g's start at g * group_stride
    dbl         (B, K, tiles, P, T)   fp32 dt, B, C of every direction in its own scan order, zero past a line's end
    A2          (K, N, E)             A log2(e): exp(delta A) = exp2(delta A2)
    states      (B, K, C, N, E)       fp32
    delta_sums  (B, K, C, E)          fp32 sum of delta over a chunk; the chunk multiplies a state by exp2(A2 sum)
"""

import triton
import triton.language as tl

from mambair.ops.ss2d.triton_tile import (
    LOG2_E,
    block_channels,
    chunk_tiles,
    line_geometry,
    row_of,
    scan_states,
    tile_delta,
    tile_pixels,
)


@triton.jit(do_not_specialize=["E"])
def pack_parameters_kernel(
    A_logs_ptr, dt_weight_ptr, A2_ptr, dt_weight_packed_ptr, E, N, R, BN: tl.constexpr, BR: tl.constexpr,
    BE: tl.constexpr,
):  # fmt: skip
    """A_logs (K E, N) -> A2 (K, N, E); dt_projs_weight (K, E, R) -> (K, R, E): channels side by side, fp32."""
    k = tl.program_id(1)
    e = tl.program_id(0) * BE + tl.arange(0, BE)
    n = tl.arange(0, BN)
    r = tl.arange(0, BR)
    mask = (e < E)[:, None] & (n < N)[None, :]
    A_logs = tl.load(A_logs_ptr + (k * E + e)[:, None] * N + n[None, :], mask=mask, other=0.0).to(tl.float32)
    tl.store(A2_ptr + (k * N + n)[None, :] * E + e[:, None], -tl.exp(A_logs) * LOG2_E, mask=mask)
    mask = (e < E)[:, None] & (r < R)[None, :]
    weight = tl.load(dt_weight_ptr + (k * E + e)[:, None] * R + r[None, :], mask=mask, other=0.0).to(tl.float32)
    tl.store(dt_weight_packed_ptr + (k * R + r)[None, :] * E + e[:, None], weight, mask=mask)


@triton.jit
def order_projections_kernel(
    projected_ptr, dbl_ptr, height, width, P, K, G, tile_pitch,
    BP: tl.constexpr, T: tl.constexpr, IMAGE: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """projected (B, L, K P), any type -> dbl.

    The scans then read a state's T values of B or C as one aligned run, in every direction alike.
    """
    tile = tl.program_id(0)
    k = tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    reverse = k >= G
    length, along, across, tile_count = line_geometry(k % G, height, width, K * P, IMAGE, T)
    if tile < tile_count:
        base, pixels, exists = tile_pixels(tile, reverse, length, along, across, EVEN, T)
        p = tl.arange(0, BP)
        mask = exists[:, None] & (p < P)[None, :]
        source = projected_ptr + b * height * width * K * P + base + k * P
        values = tl.load(source + pixels[:, None] + p[None, :], mask=mask, other=0.0)
        target = dbl_ptr + ((b * K + k) * tile_pitch + tile) * P * T
        t = tl.arange(0, T)
        tl.store(target + p[None, :] * T + t[:, None], values.to(tl.float32), mask=(p < P)[None, :])


@triton.jit(do_not_specialize=["E"])
def chunk_states_kernel(
    x_ptr, delta_ptr, dbl_ptr, A2_ptr, dt_weight_ptr, bias_ptr, states_ptr, delta_sums_ptr,
    height, width, pixel_stride, group_stride, E, N, K, G, tile_pitch, chunks,
    R: tl.constexpr, T: tl.constexpr, BE: tl.constexpr, IMAGE: tl.constexpr, EVEN: tl.constexpr,
    FULL_DELTA: tl.constexpr, SOFTPLUS: tl.constexpr,
):  # fmt: skip
    """The state at the end of every chunk if it began at zero, and the chunk's sum of delta."""
    chunk = tl.program_id(1)
    k = tl.program_id(2) % K
    b = (tl.program_id(2) // K).to(tl.int64)
    group = k % G
    reverse = k >= G
    length, along, across, tile_count = line_geometry(group, height, width, pixel_stride, IMAGE, T)
    e, exists_e = block_channels(tl.program_id(0), E, BE)
    bias = tl.load(bias_ptr + k * E + e, mask=exists_e, other=0.0).to(tl.float32)
    image = b * height * width * pixel_stride + group * group_stride
    P = R + 2 * N
    dbl_ptr += (b * K + k) * tile_pitch * P * T
    states_ptr += ((b * K + k) * chunks + chunk) * N * E + e
    A2_ptr += k * N * E + e
    dt_weight_ptr += k * R * E
    t = tl.arange(0, T)
    total = tl.zeros_like(bias)
    low, count = chunk_tiles(chunk, chunks, tile_count)
    for i in range(count):
        tile = tl.where(reverse, low + count - 1 - i, low + i)
        base, pixels, exists = tile_pixels(tile, reverse, length, along, across, EVEN, T)
        mask = exists[:, None, None] & exists_e[None, :, :]
        offsets = pixels[:, None, None] + e[None, :, :]
        x = tl.load(x_ptr + image + base + offsets, mask=mask, other=0.0).to(tl.float32)
        dbl = dbl_ptr + tile.to(tl.int64) * (P * T)
        delta = tile_delta(
            dbl, delta_ptr + image + base, dt_weight_ptr, bias, e, exists_e, offsets, mask, E, R, T, FULL_DELTA,
            SOFTPLUS,
        )  # fmt: skip
        delta_x = delta * x
        total += tl.sum(delta, 0)
        for n in range(N):
            B = tl.load(dbl + (R + n) * T + t)
            A2 = tl.load(A2_ptr + n * E, mask=exists_e, other=0.0)
            before = tl.load(states_ptr + n * E, mask=exists_e & (i > 0), other=0.0)
            _, h = scan_states(tl.exp2(delta * A2[None, :, :]), delta_x * B[:, None, None], before, T)
            tl.store(states_ptr + n * E, row_of(h, T - 1, T), mask=exists_e)
    tl.store(delta_sums_ptr + ((b * K + k) * chunks + chunk) * E + e, total, mask=exists_e)


@triton.jit
def _chain_exclusive(decay_1, inner_1, state_1, before_1, decay_2, inner_2, state_2, before_2):
    # `before`: the state before a run's last element; `inner`: the product of the decays before that element.
    return decay_1 * decay_2, decay_1 * inner_2, decay_2 * state_1 + state_2, inner_2 * state_1 + before_2


@triton.jit(do_not_specialize=["E"])
def pass_states_kernel(
    states_ptr, delta_sums_ptr, A2_ptr, initial_ptr, E, N, K, G, chunks, first_group, groups,
    SENSES: tl.constexpr, BACKWARD: tl.constexpr, INITIAL: tl.constexpr,
    BC: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """In place: each chunk's own contribution -> the state that enters the chunk.

    BACKWARD: the same for the gradients of states, which run against the direction. INITIAL: what enters the first
    chunk is in initial_ptr (B, K, N, E) instead of zero.
    """
    n = tl.program_id(1)
    slot = tl.program_id(2) % (SENSES * groups)
    b = (tl.program_id(2) // (SENSES * groups)).to(tl.int64)
    sense = slot // groups
    k = first_group + slot % groups + sense * G
    e, exists_e = block_channels(tl.program_id(0), E, BE)
    A2 = tl.load(A2_ptr + (k * N + n) * E + e, mask=exists_e, other=0.0)
    states_ptr += ((b * (SENSES * groups) + slot) * chunks * N + n) * E + e[None, :, :]
    delta_sums_ptr += (b * K + k) * chunks * E + e[None, :, :]
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
        mask = (place < chunks)[:, None, None] & exists_e[None, :, :]
        own = tl.load(states_ptr + chunk * N * E, mask=mask, other=0.0)
        decay = tl.exp2(tl.load(delta_sums_ptr + chunk * E, mask=mask, other=0.0) * A2[None, :, :])
        ones = tl.full(own.shape, 1.0, tl.float32)
        own = tl.where(first, decay * carry[None, :, :] + own, own)
        before = tl.where(first, carry[None, :, :], 0.0)
        _, _, after, entering = tl.associative_scan((decay, ones, own, before), 0, _chain_exclusive)
        tl.store(states_ptr + chunk * N * E, entering, mask=mask)
        carry = row_of(after, BC - 1, BC)


@triton.jit(do_not_specialize=["E"])
def outputs_kernel(
    x_ptr, delta_ptr, dbl_ptr, A2_ptr, dt_weight_ptr, bias_ptr, D_ptr, states_ptr, carry_ptr, parts_ptr,
    height, width, pixel_stride, group_stride, part_stride, E, N, K, G, tile_pitch, chunks,
    R: tl.constexpr, T: tl.constexpr, BE: tl.constexpr, IMAGE: tl.constexpr, EVEN: tl.constexpr,
    FULL_DELTA: tl.constexpr, SOFTPLUS: tl.constexpr,
):  # fmt: skip
    """One direction's y of one chunk, from the state that enters it; direction k writes to parts_ptr + k part_stride.

    carry_ptr may be states_ptr, unless the entering states are to be kept for the backward pass.
    """
    chunk = tl.program_id(1)
    k = tl.program_id(2) % K
    b = (tl.program_id(2) // K).to(tl.int64)
    group = k % G
    reverse = k >= G
    length, along, across, tile_count = line_geometry(group, height, width, pixel_stride, IMAGE, T)
    e, exists_e = block_channels(tl.program_id(0), E, BE)
    bias = tl.load(bias_ptr + k * E + e, mask=exists_e, other=0.0).to(tl.float32)
    D = tl.load(D_ptr + k * E + e, mask=exists_e, other=0.0).to(tl.float32)
    image = b * height * width * pixel_stride + group * group_stride
    parts_ptr += k * part_stride + image
    P = R + 2 * N
    dbl_ptr += (b * K + k) * tile_pitch * P * T
    states_ptr += ((b * K + k) * chunks + chunk) * N * E + e
    carry_ptr += ((b * K + k) * chunks + chunk) * N * E + e
    A2_ptr += k * N * E + e
    dt_weight_ptr += k * R * E
    t = tl.arange(0, T)
    low, count = chunk_tiles(chunk, chunks, tile_count)
    for i in range(count):
        tile = tl.where(reverse, low + count - 1 - i, low + i)
        base, pixels, exists = tile_pixels(tile, reverse, length, along, across, EVEN, T)
        mask = exists[:, None, None] & exists_e[None, :, :]
        offsets = pixels[:, None, None] + e[None, :, :]
        x = tl.load(x_ptr + image + base + offsets, mask=mask, other=0.0).to(tl.float32)
        dbl = dbl_ptr + tile.to(tl.int64) * (P * T)
        delta = tile_delta(
            dbl, delta_ptr + image + base, dt_weight_ptr, bias, e, exists_e, offsets, mask, E, R, T, FULL_DELTA,
            SOFTPLUS,
        )  # fmt: skip
        delta_x = delta * x
        y = D[None, :, :] * x
        entering = tl.where(i > 0, carry_ptr, states_ptr)
        for n in range(N):
            B = tl.load(dbl + (R + n) * T + t)
            C = tl.load(dbl + (R + N + n) * T + t)
            A2 = tl.load(A2_ptr + n * E, mask=exists_e, other=0.0)
            before = tl.load(entering + n * E, mask=exists_e, other=0.0)
            _, h = scan_states(tl.exp2(delta * A2[None, :, :]), delta_x * B[:, None, None], before, T)
            y += C[:, None, None] * h
            tl.store(carry_ptr + n * E, row_of(h, T - 1, T), mask=exists_e)
        tl.store(parts_ptr + base + offsets, y.to(parts_ptr.dtype.element_ty), mask=mask)


@triton.jit
def sum_parts_kernel(parts_ptr, sum_ptr, part_stride, size, parts: tl.constexpr, BLOCK: tl.constexpr):
    """Sum of `parts` tensors that lie part_stride apart, in fp32 and in their order."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < size
    total = tl.zeros([BLOCK], tl.float32)
    for part in tl.static_range(parts):
        total += tl.load(parts_ptr + part * part_stride + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(sum_ptr + place, total.to(sum_ptr.dtype.element_ty), mask=mask)
