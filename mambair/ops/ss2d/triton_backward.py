"""Backward kernels of the chunked scan; triton_forward.py and triton_prepare.py have the legend of the shapes.

One launch treats S directions: both senses of its groups, all forward ones first.

    adjoints      (B, S, C, EB, N, lanes)    decay[t] g[t] that leaves a chunk against its direction; g = dLoss/dh
    tile_states   (B, S, tiles, EB, N, lanes)  the state that enters each tile, recomputed
    dx_parts      (senses, B, L, pixel stride)
    d_v           (B L, S, E)                gradient of delta before softplus
    d_bc          (EB, B, S, tiles, 2N, T)   gradient of B and C, one part per block of channels
    d_parameters  (B C, S, EB, N + 1, lanes)  gradients of A, and of D in the last row; one part per chunk
"""

import triton
import triton.language as tl

from mambair.ops.ss2d.triton_prepare import softplus_slope
from mambair.ops.ss2d.triton_walk import (
    LANES,
    block_channels,
    chunk_places,
    chunk_tiles,
    direction,
    fetch,
    fetch_pixels,
    fetch_run,
    line_geometry,
    lines_ahead,
    row_of,
    some_pixels_ahead,
    state_places,
    tile_pixels,
    walk_from,
    walk_on,
    wide,
)

LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit(do_not_specialize=["E", "chunks"])
def chunk_adjoints_kernel(
    x_ptr, dy_ptr, delta_ptr, bc_ptr, A2_ptr, states_ptr, tile_states_ptr, adjoints_ptr,
    height, width, pixel_stride, group_stride, E, EP, K, G, chunks, first_group, groups, tile_pitch,
    N: tl.constexpr, NP: tl.constexpr, BN: tl.constexpr, T: tl.constexpr, BE: tl.constexpr, IMAGE: tl.constexpr,
    WIDE: tl.constexpr, SENSES: tl.constexpr,
):  # fmt: skip
    """tile_states, and each chunk's own contribution to its adjoint.

    One pass over the states serves both, since the decay since the chunk's start, which weights C dy in the adjoint,
    comes from the same exponentials.
    """
    chunk = tl.program_id(1)
    slots = SENSES * groups
    slot = tl.program_id(2) % slots
    b = (tl.program_id(2) // slots).to(tl.int64)
    group, sense, k = direction(slot, first_group, groups, G)
    length, line_count, along, across = line_geometry(group, height, width, IMAGE)
    tiles_per_line = tl.cdiv(length, T)
    e, exists_e = block_channels(tl.program_id(0), E, BE)
    n = tl.arange(0, BN)
    live = n[:, None, None] < N
    places = state_places(tl.program_id(0), n[:, None, None], BE, N)
    block = tl.program_id(0) * BE
    image = b * height * width * pixel_stride + group * group_stride
    x_ptr += image + block
    dy_ptr += image + block
    delta_ptr += (b * height * width * slots + slot) * E + block
    bc_ptr += (b * height * width * slots + slot) * (2 * NP)
    lines, strides = lines_ahead(
        x_ptr, dy_ptr, delta_ptr, bc_ptr, pixel_stride, slots * E, slots * 2 * NP, BE, 2 * NP
    )
    x_ptr += e - block
    dy_ptr += e - block
    delta_ptr += e - block
    tile_states_ptr += (b * slots + slot) * tile_pitch * N * EP + places
    A2 = tl.load(A2_ptr + k * N * EP + places, mask=live, other=0.0)
    h = tl.load(states_ptr + ((b * K + k) * chunks + chunk) * N * EP + places, mask=live, other=0.0)
    passed = tl.full(A2.shape, 1.0, tl.float32)
    adjoint = tl.zeros_like(A2)
    first, count = chunk_places(chunk, chunks, length, line_count, T)
    start = tl.where(sense == 1, first + count - 1, first)
    line = start // length
    pixel, position = walk_from(start, length, along, across)
    for _ in range(count):
        place = wide(pixel, WIDE)
        delta = tl.load(delta_ptr + place * (slots * E), mask=exists_e, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + place * pixel_stride, mask=exists_e, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + place * pixel_stride, mask=exists_e, other=0.0).to(tl.float32)
        B = tl.load(bc_ptr + place * (slots * 2 * NP) + n, mask=n < NP, other=0.0)[:, None, None]
        C = tl.load(bc_ptr + place * (slots * 2 * NP) + NP + n, mask=n < NP, other=0.0)[:, None, None]
        fetch(lines + some_pixels_ahead(pixel, along, sense, height * width) * strides)
        entry = tl.where(sense == 1, tl.minimum(position // T * T + T, length) - 1, position // T * T)
        if position == entry:
            tile = (line * tiles_per_line + position // T).to(tl.int64)
            tl.store(tile_states_ptr + tile * N * EP, h.to(tile_states_ptr.dtype.element_ty), mask=live)
        pixel, next_position = walk_on(pixel, position, length, along, across, sense)
        line += tl.where(next_position - position == 1 - 2 * sense, 0, 1 - 2 * sense)
        position = next_position
        decay = tl.exp2(delta * A2)
        h = tl.where(live, decay * h + (delta * x) * B, 0.0)
        passed = tl.where(live, passed * decay, 1.0)
        adjoint = tl.where(live, adjoint + passed * (dy * C), 0.0)
    tl.store(adjoints_ptr + ((b * slots + slot) * chunks + chunk) * N * EP + places, adjoint, mask=live)


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
    _, _, g = tl.associative_scan((tl.flip(decay, 0), ones, tl.flip(inflow, 0)), 0, _chain_shifted)
    return tl.flip(g, 0)


# Sums over the 32 threads of a warp on the tensor cores without moving the values first: any thread may hold any term of
# a sum. Four values of a thread, packed to two bf16 pairs, are a B operand as they are: an element's column is the
# thread's group of four, its row the value and the thread's place in the group. A picks value r % 4 into row r, so that
# D[r, group] is the sum of that value over the group. Sixteen values make four such D, of which each thread keeps the
# rows of its own; a last product with ones sums over the eight groups.
_HEADER = """
.reg .pred q, lower;
.reg .b32 lane, g, low, high, even, odd, one, a0, a1, a2, a3, b0, b1;
.reg .f32 s, d<4>, e<4>, c<4>;
mov.u32 lane, %laneid;
shr.u32 g, lane, 2;
mov.b32 one, 0x3F800000;
setp.lt.u32 lower, g, 4;
and.b32 g, g, 3;
setp.eq.u32 q, g, 0; selp.b32 low, 0x3F80, 0, q;
setp.eq.u32 q, g, 1; selp.b32 high, 0x3F800000, 0, q;
or.b32 even, low, high;
setp.eq.u32 q, g, 2; selp.b32 low, 0x3F80, 0, q;
setp.eq.u32 q, g, 3; selp.b32 high, 0x3F800000, 0, q;
or.b32 odd, low, high;
"""
_ZEROS = "{0f00000000, 0f00000000, 0f00000000, 0f00000000}"


def _sum_sixteen(registers: list[int]) -> str:
    """PTX: sums g and g + 8 of the 16 values in operands `registers`, in c0 and c2 of every thread of group g."""
    lines = []
    for half, rows in enumerate(("01", "23")):
        for quarter, d in enumerate("de"):
            first = 8 * half + 4 * quarter
            v = [f"${register}" for register in registers[first : first + 4]]
            lines.append(f"cvt.rn.bf16x2.f32 b0, {v[1]}, {v[0]}; cvt.rn.bf16x2.f32 b1, {v[3]}, {v[2]};")
            lines.append(
                "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                f"{{{d}0, {d}1, {d}2, {d}3}}, {{even, even, odd, odd}}, {{b0, b1}}, {_ZEROS};"
            )
        lines += [f"selp.f32 c{row}, d{row}, e{row}, lower;" for row in rows]
    lines.append("mov.b32 a0, c0; mov.b32 a1, c2; mov.b32 a2, c1; mov.b32 a3, c3;")
    lines.append(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        f"{{c0, c1, c2, c3}}, {{a0, a1, a2, a3}}, {{one, one}}, {_ZEROS};"
    )
    return "\n".join(lines)


def _warp_sums(tile: int) -> tuple[str, str]:
    """(PTX, constraints) that sum two sets of `tile` values over a warp.

    The first output register of thread 4 g + j holds: tile 8: sum g of set j (j < 2); tile 16: sum g + 8 (j % 2) of set
    j // 2.
    """
    first, second = list(range(tile, 2 * tile)), list(range(2 * tile, 3 * tile))
    lines = ["{", _HEADER, "and.b32 lane, lane, 3;"]
    if tile == 8:
        lines += [_sum_sixteen(first + second), "setp.eq.u32 q, lane, 1; selp.f32 $0, c2, c0, q;"]
    else:
        lines += [_sum_sixteen(first), "setp.eq.u32 q, lane, 1; selp.f32 s, c2, c0, q;", _sum_sixteen(second)]
        lines += ["setp.eq.u32 q, lane, 2; selp.f32 s, c0, s, q; setp.eq.u32 q, lane, 3; selp.f32 $0, c2, s, q;"]
    lines += [f"mov.f32 ${index}, 0f00000000;" for index in range(1, tile)]
    lines.append("}")
    return "\n".join(lines), ",".join(["=&f"] * tile + ["f"] * (2 * tile))


_SUMS_8, _SUMS_8_REGISTERS = (tl.constexpr(text) for text in _warp_sums(8))
_SUMS_16, _SUMS_16_REGISTERS = (tl.constexpr(text) for text in _warp_sums(16))


@triton.jit
def sum_by_matrices(first, second, T: tl.constexpr):
    """Sums of two (T, 1, 32) tiles of bf16 precision over their channels: (1, 1, 32), see `_warp_sums`."""
    if T == 8:
        sums = tl.inline_asm_elementwise(_SUMS_8, _SUMS_8_REGISTERS, [first, second], tl.float32, True, 8)
    else:
        sums = tl.inline_asm_elementwise(_SUMS_16, _SUMS_16_REGISTERS, [first, second], tl.float32, True, 16)
    return row_of(sums, 0, T)


@triton.jit
def sum_over_channels(first, second, T: tl.constexpr, PRECISION: tl.constexpr):
    """Sums of two (T, 1, lanes) tiles over their channels as one product with ones: (2 T, 8), every column the same.

    Staged through shared memory; for fp32 the upper bits of a value and the rest go in side by side, since tf32 keeps 11
    bits, and ones need no third term.
    """
    first, second = tl.sum(first, 1), tl.sum(second, 1)
    both = tl.reshape(tl.permute(tl.join(first, second), (2, 0, 1)), (2 * T, LANES))
    if PRECISION == "tf32x3":
        upper = (both.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
        both = tl.reshape(tl.join(upper, both - upper), (2 * T, 2 * LANES))
        sums = tl.dot(both, tl.full([2 * LANES, 8], 1.0, tl.float32), input_precision="tf32")
    else:
        sums = tl.dot(both, tl.full([LANES, 8], 1.0, tl.float32), input_precision=PRECISION)
    return sums


@triton.jit(do_not_specialize=["E", "chunks"])
def gradients_kernel(
    x_ptr, dy_ptr, delta_ptr, tile_bc_ptr, A2_ptr, D_ptr, tile_states_ptr, adjoints_ptr,
    dx_parts_ptr, d_v_ptr, d_bc_ptr, d_parameters_ptr,
    height, width, pixel_stride, group_stride, part_stride, E, EP, G, chunks, first_group, groups, tile_pitch,
    N: tl.constexpr, T: tl.constexpr, BE: tl.constexpr, IMAGE: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr,
    SENSES: tl.constexpr, SOFTPLUS: tl.constexpr, ADD: tl.constexpr, PRECISION: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """All gradients of one direction's chunk; adjoints holds what enters the chunk, and is used up.

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
    block = tl.program_id(0) * BE
    lane = tl.arange(0, LANES)[None, None, :]
    image = b * height * width * pixel_stride + group * group_stride + block
    x_ptr += image
    dy_ptr += image
    delta_ptr += (b * height * width * slots + slot) * E + block
    tile_bc_ptr += (b * slots + slot) * tile_pitch * 2 * N * T
    d_bc_ptr += ((tl.program_id(0) * batch + b) * slots + slot) * tile_pitch * 2 * N * T
    states = tl.program_id(0) * (N * LANES)
    tile_states_ptr += (b * slots + slot) * tile_pitch * N * EP + states
    adjoints_ptr += ((b * slots + slot) * chunks + chunk) * N * EP + states + lane
    A2_ptr += k * N * EP + states + lane
    d_parameters_ptr += ((b * chunks + chunk) * slots + slot) * (N + 1) * EP + states + block + lane
    d_v_ptr += (b * height * width * slots + slot) * E + e
    dx_parts_ptr += sense * part_stride + image + lane
    X: tl.constexpr = x_ptr.dtype.element_ty.primitive_bitwidth // 8
    DELTA: tl.constexpr = delta_ptr.dtype.element_ty.primitive_bitwidth // 8
    STATE: tl.constexpr = tile_states_ptr.dtype.element_ty.primitive_bitwidth // 8
    t = tl.arange(0, T)
    both = tl.arange(0, 2 * T)
    column = tl.arange(0, 8)
    d_D = tl.zeros_like(D)
    low, count = chunk_tiles(chunk, chunks, line_count * tl.cdiv(length, T))
    for i in range(count):
        tile = tl.where(sense == 1, low + i, low + count - 1 - i)
        base, pixels, exists = tile_pixels(tile, sense, length, along, across, EVEN, T)
        mask = exists[:, None, None] & exists_e
        place = wide(base + pixels[:, None, None], WIDE)
        tile = tile.to(tl.int64)
        x = tl.load(x_ptr + lane + place * pixel_stride, mask=mask, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + lane + place * pixel_stride, mask=mask, other=0.0).to(tl.float32)
        delta = tl.load(delta_ptr + lane + place * (slots * E), mask=mask, other=0.0).to(tl.float32)
        tile_bc = tile_bc_ptr + tile * (2 * N * T)
        d_bc = d_bc_ptr + tile * (2 * N * T)
        tile_states = tile_states_ptr + tile * N * EP + lane
        # What the next tile reads is on its way from here on.
        following = tile + tl.where(i + 1 < count, 2 * sense - 1, 0)
        fetch_run(tile_bc_ptr + following * (2 * N * T), 2 * N * T * 4)
        fetch_run(tile_states_ptr + following * N * EP, N * LANES * STATE)
        start, _, _ = tile_pixels(following.to(tl.int32), 0, length, along, across, EVEN, T)
        fetch_pixels(x_ptr, start, along, pixel_stride * X, LANES * X)
        fetch_pixels(dy_ptr, start, along, pixel_stride * X, LANES * X)
        fetch_pixels(delta_ptr, start, along, slots * E * DELTA, LANES * DELTA)
        delta_x = delta * x
        d_delta_x = tl.zeros_like(delta)
        d_exponent = tl.zeros_like(delta)
        for n in tl.range(0, N, loop_unroll_factor=UNROLL):
            A2 = tl.load(A2_ptr + n * LANES)
            before = tl.load(tile_states + n * LANES).to(tl.float32)
            after = tl.load(adjoints_ptr + n * LANES)
            d_A = tl.load(d_parameters_ptr + n * LANES, mask=i > 0, other=0.0)
            B = tl.load(tile_bc + n * T + t)[:, None, None]
            C = tl.load(tile_bc + (N + n) * T + t)[:, None, None]
            decay = tl.exp2(delta * A2)
            inflow = delta_x * B
            carried = scan_carried(decay, inflow, before, T)
            h = carried + inflow
            g = scan_adjoints(decay, dy * C, after, T)
            tl.store(adjoints_ptr + n * LANES, row_of(decay * g, 0, T))
            d_delta_x += g * B
            through_decay = g * carried
            d_exponent += through_decay * A2
            tl.store(d_parameters_ptr + n * LANES, d_A + tl.sum(through_decay * delta, 0, keep_dims=True))
            if PRECISION == "bf16":
                sums = sum_by_matrices(g * delta_x, dy * h, T)
                j = lane % 4
                if T == 8:
                    target = (n + j * N) * T + lane // 4
                    tl.store(d_bc + target, sums.to(d_bc_ptr.dtype.element_ty), mask=j < 2)
                else:
                    target = (n + j // 2 * N) * T + lane // 4 + 8 * (j % 2)
                    tl.store(d_bc + target, sums.to(d_bc_ptr.dtype.element_ty))
            else:
                sums = sum_over_channels(g * delta_x, dy * h, T, PRECISION)
                row = n * T + tl.where(both < T, both, both - T + N * T)
                tl.store(
                    d_bc + row[:, None] + column[None, :] * 0,
                    sums.to(d_bc_ptr.dtype.element_ty),
                    mask=(column == 0)[None, :] & (both >= 0)[:, None],
                )
        # Read again, from the cache: holding x through the loop above would cost T registers.
        x = tl.load(x_ptr + lane + place * pixel_stride, mask=mask, other=0.0).to(tl.float32)
        d_v = LN_2 * d_exponent + x * d_delta_x
        if SOFTPLUS:
            d_v *= softplus_slope(delta, delta_ptr.dtype.element_ty)
        d_D += tl.sum(dy * x, 0, keep_dims=True)
        tl.store(d_v_ptr + place * (slots * E), d_v.to(d_v_ptr.dtype.element_ty), mask=mask)
        dx = D * dy + delta * d_delta_x
        if ADD:
            dx += tl.load(dx_parts_ptr + place * pixel_stride, mask=mask, other=0.0).to(tl.float32)
        tl.store(dx_parts_ptr + place * pixel_stride, dx.to(dx_parts_ptr.dtype.element_ty), mask=mask)
    tl.store(d_parameters_ptr + N * LANES, d_D)
