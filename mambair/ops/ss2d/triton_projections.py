"""What comes after the scans: the gradients of the projections, and sums of the parts of parameters' gradients.

triton_prepare.py and triton_backward.py have the legend of the shapes.
"""

import triton
import triton.language as tl

from mambair.ops.ss2d.triton_prepare import LOG2_E
from mambair.ops.ss2d.triton_walk import direction, line_geometry, places_of_tiles


@triton.jit
def gather_bc_kernel(
    d_bc_ptr, d_projected_ptr, height, width, P, R, N, K, G, first_group, groups, tile_pitch, parts,
    BP: tl.constexpr, BT: tl.constexpr, T: tl.constexpr, IMAGE: tl.constexpr, SENSES: tl.constexpr,
):  # fmt: skip
    """The parts of d_bc (parts, B, S, tiles, 2N, T), summed -> their columns of d_projected: undoes order_bc_kernel."""
    tile = tl.program_id(0) * BT + tl.arange(0, BT)
    slot = tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    batch = tl.num_programs(2)
    group, sense, k = direction(slot, first_group, groups, G)
    length, lines, along, across = line_geometry(group, height, width, IMAGE)
    p = tl.arange(0, BP)[None, :, None]
    t = tl.arange(0, T)[None, None, :]
    there = (tile < lines * tl.cdiv(length, T))[:, None, None] & (p < 2 * N) & (t >= 0)
    total = tl.zeros([BT, BP, T], tl.float32)
    for part in tl.range(0, parts, loop_unroll_factor=4):
        place = ((part * batch + b) * (SENSES * groups) + slot) * tile_pitch + tile[:, None, None]
        total += tl.load(d_bc_ptr + (place * (2 * N) + p) * T + t, mask=there, other=0.0).to(tl.float32)
    pixels, exists = places_of_tiles(tile, sense, length, lines, along, across, T)
    target = d_projected_ptr + (b * height * width + pixels[:, None, :]) * (K * P) + k * P + R + p
    tl.store(target, total.to(d_projected_ptr.dtype.element_ty), mask=exists[:, None, :] & (p < 2 * N))


@triton.jit
def dt_gradient_kernel(
    d_v_ptr, dt_weight_ptr, d_projected_ptr, pixels, P, K, G, first_group, groups, slots,
    E: tl.constexpr, R: tl.constexpr, BR: tl.constexpr, BL: tl.constexpr, BE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """d_v (B L, S, E), the gradient before softplus, times dt_weight -> the dt columns of d_projected."""
    slot = tl.program_id(1)
    _, _, k = direction(slot, first_group, groups, G)
    pixel = tl.program_id(0).to(tl.int64) * BL + tl.arange(0, BL)[:, None]
    exists = pixel < pixels
    r = tl.arange(0, BR)
    total = tl.zeros([BL, BR], tl.float32)
    for start in range(0, E, BE):
        e = start + tl.arange(0, BE)
        d_v = tl.load(d_v_ptr + (pixel * slots + slot) * E + e[None, :], mask=exists & (e < E)[None, :], other=0.0)
        place = (k * R + r[None, :]) * E + e[:, None]
        weight = tl.load(dt_weight_ptr + place, mask=(r < R)[None, :] & (e < E)[:, None], other=0.0)
        total = tl.dot(d_v.to(tl.float32), weight, total, input_precision=PRECISION)
    target = d_projected_ptr + pixel * (K * P) + k * P + r[None, :]
    tl.store(target, total.to(d_projected_ptr.dtype.element_ty), mask=exists & (r < R)[None, :])


@triton.jit
def weight_gradient_kernel(
    d_v_ptr, projected_ptr, parts_ptr, pixels, P, K, G, first_group, groups, slots, share,
    E: tl.constexpr, R: tl.constexpr, BR: tl.constexpr, BL: tl.constexpr, BE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sums of d_v dt, and of d_v in row R, over `share` (a multiple of BL) pixels: parts (programs, S, R + 1, E)."""
    slot = tl.program_id(1)
    _, _, k = direction(slot, first_group, groups, G)
    e = tl.program_id(0) * BE + tl.arange(0, BE)
    r = tl.arange(0, BR)[None, :]
    total = tl.zeros([BE, BR], tl.float32)
    low = tl.program_id(2).to(tl.int64) * share
    for start in range(0, share, BL):
        pixel = low + start + tl.arange(0, BL)[:, None]
        source = d_v_ptr + (pixel * slots + slot) * E + e[None, :]
        d_v = tl.load(source, mask=(pixel < pixels) & (e < E)[None, :], other=0.0)
        dt = tl.load(projected_ptr + pixel * (K * P) + k * P + r, mask=(pixel < pixels) & (r < R), other=0.0)
        dt = tl.where(r == R, 1.0, dt)
        if PRECISION == "ieee" or dt.dtype != d_v.dtype:  # Triton 3.3 has no products of fp16 without tensor cores
            d_v, dt = d_v.to(tl.float32), dt.to(tl.float32)
        total = tl.dot(tl.trans(d_v), dt, total, input_precision=PRECISION)
    place = ((tl.program_id(2).to(tl.int64) * slots + slot) * (R + 1) + r) * E + e[:, None]
    tl.store(parts_ptr + place, total, mask=(r < R + 1) & (e < E)[:, None])


@triton.jit(do_not_specialize=["E", "parts"])
def sum_rows_kernel(
    parts_ptr, A2_ptr, first_ptr, last_ptr, parts, E, EP, ROWS, part_stride, row_stride, block_stride, G, first_group,
    groups, LOGS: tl.constexpr, BC: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Rows of a direction, summed over parts in a fixed order -> first (K, E, ROWS - 1) and, the last row, last (K, E).

    A part holds (S, EB, ROWS, BE) or (S, ROWS, E), as the strides say; the directions lie side by side in it.
    LOGS: the rows are gradients of A, wanted are those of A_logs, where A = -exp(A_logs).
    """
    row = tl.program_id(1)
    slot = tl.program_id(2)
    _, _, k = direction(slot, first_group, groups, G)
    lane = tl.arange(0, BE)
    e = tl.program_id(0) * BE + lane
    parts_ptr += slot * (part_stride // tl.num_programs(2)) + tl.program_id(0) * block_stride + row * row_stride + lane
    part = tl.arange(0, BC)
    total = tl.zeros([BE], tl.float32)
    for start in range(0, parts, BC):
        mask = (start + part < parts)[:, None] & (e < E)[None, :]
        total += tl.sum(
            tl.load(parts_ptr + (start + part).to(tl.int64)[:, None] * part_stride, mask=mask, other=0.0), 0
        )
    if row == ROWS - 1:
        tl.store(last_ptr + k * E + e, total, mask=e < E)
    else:
        if LOGS:
            A2 = tl.load(A2_ptr + (k * EP + tl.program_id(0) * BE) * (ROWS - 1) + row * BE + lane)
            total *= A2 / LOG2_E
        tl.store(first_ptr + (k * E + e) * (ROWS - 1) + row, total, mask=e < E)
