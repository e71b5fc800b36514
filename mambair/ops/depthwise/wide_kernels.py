"""Kernels of depthwise convolutions with more than 3x3 weights per channel.

Shapes: B images, H x W pixels, C channels, k sides of the weights, d dilation; a tile is PX pixels of one row by BC
channels. Every pixel is read k k times, all but once from the cache: sliding sums as for 3x3 would fill the registers.

    x       (B, H, W, C)  any strides but that channels are side by side; strides are counted in groups of V channels,
                          which tells the compiler that V channels may be read at once
    weight  (k k, C)      fp32, row k i + j for the neighbour i - k // 2 rows down and j - k // 2 columns to the right
    y, dy   (B, H, W, C)  contiguous
    parts   (P, k k + 1, C)  fp32 sums of the gradients of weight and bias over one share of the lines each
"""

import triton
import triton.language as tl

SIZES = ["H", "W", "groups", "x_image", "x_row", "x_pixel", "dilation", "lines", "share"]


@triton.jit
def tile_place(tile, H, W, PX: tl.constexpr):
    """(image, row, columns (PX)) of a tile."""
    across = tl.cdiv(W, PX)
    line = tile // across
    return (line // H).to(tl.int64), line % H, tile % across * PX + tl.arange(0, PX)


@triton.jit(do_not_specialize=SIZES)
def convolve_kernel(
    x_ptr, weight_ptr, bias_ptr, y_ptr, H, W, groups, x_image, x_row, x_pixel, dilation,
    k: tl.constexpr, V: tl.constexpr, PX: tl.constexpr, BC: tl.constexpr, BIAS: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """y = convolution + bias. With dy for x and the weights in REVERSE this is the gradient of x."""
    C = groups * V
    b, row, w = tile_place(tl.program_id(0), H, W, PX)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    live = c < C
    total = tl.zeros([PX, BC], tl.float32)
    if BIAS:
        total += tl.load(bias_ptr + c, mask=live, other=0.0).to(tl.float32)[None, :]
    x_ptr += b * x_image * V
    for i in tl.static_range(k):
        r = row + (i - k // 2) * dilation
        line_ptr = x_ptr + r.to(tl.int64) * x_row * V
        for j in tl.static_range(k):
            q = w + (j - k // 2) * dilation
            mask = ((q >= 0) & (q < W) & (r >= 0) & (r < H))[:, None] & live[None, :]
            values = tl.load(line_ptr + (q[:, None] * (x_pixel * V) + c[None, :]), mask=mask, other=0.0)
            place = weight_ptr + (k * k - 1 - (k * i + j) if REVERSE else k * i + j) * C + c
            total += values.to(tl.float32) * tl.load(place, mask=live, other=0.0)[None, :]
    target = y_ptr + (b * H + row) * W * C + (w[:, None] * C + c[None, :])
    tl.store(target, total.to(y_ptr.dtype.element_ty), mask=(w < W)[:, None] & live[None, :])


@triton.jit(do_not_specialize=SIZES)
def weight_gradients_kernel(
    x_ptr, dy_ptr, parts_ptr, H, W, groups, x_image, x_row, x_pixel, dilation, lines, share,
    k: tl.constexpr, V: tl.constexpr, PX: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One row of the weights' gradients over a share of the lines, PX columns of them; the middle row's program has the
    bias's too."""
    C = groups * V
    across = tl.cdiv(W, PX)
    w = tl.program_id(0) % across * PX + tl.arange(0, PX)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    i = tl.program_id(2)
    exists = (w < W)[:, None] & (c < C)[None, :]
    d_bias = tl.zeros([PX, BC], tl.float32)
    sums = ()
    for _ in tl.static_range(k):
        sums += (tl.zeros([PX, BC], tl.float32),)
    first = tl.program_id(0) // across * share
    b, row = first // H, first % H
    dy_ptr += first.to(tl.int64) * W * C + w[:, None] * C + c[None, :]
    x_ptr += w[:, None] * (x_pixel * V) + c[None, :]
    for _ in range(first, tl.minimum(first + share, lines)):
        dy = tl.load(dy_ptr, mask=exists, other=0.0).to(tl.float32)
        d_bias += dy
        r = row + (i - k // 2) * dilation
        read = exists & (r >= 0) & (r < H)
        source = x_ptr + b.to(tl.int64) * (x_image * V) + r.to(tl.int64) * (x_row * V)
        added = ()
        for j in tl.static_range(k):
            step = (j - k // 2) * dilation
            mask = read & ((w + step >= 0) & (w + step < W))[:, None]
            added += (sums[j] + tl.load(source + step * (x_pixel * V), mask=mask, other=0.0).to(tl.float32) * dy,)
        sums = added
        dy_ptr += W * C
        row += 1
        b += tl.where(row == H, 1, 0)
        row = tl.where(row == H, 0, row)
    parts_ptr += (tl.program_id(0) * (k * k + 1)).to(tl.int64) * C + c
    for j in tl.static_range(k):
        tl.store(parts_ptr + (i * k + j) * C, tl.sum(sums[j], 0), mask=c < C)
    tl.store(parts_ptr + k * k * C, tl.sum(d_bias, 0), mask=(c < C) & (i == k // 2))


@triton.jit(do_not_specialize=["parts", "C"])
def sum_parts_kernel(
    parts_ptr, d_weight_ptr, d_bias_ptr, parts, C, KK: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr
):
    """d_weight (C, KK) and d_bias (C) from their parts, always in the same order."""
    k = tl.program_id(1)
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    p = tl.arange(0, BP)
    total = tl.zeros([BP, BC], tl.float32)
    parts_ptr += k * C + c[None, :]
    for first in range(0, parts, BP):
        place = (first + p).to(tl.int64)[:, None]
        total += tl.load(parts_ptr + place * ((KK + 1) * C), mask=(place < parts) & (c < C)[None, :], other=0.0)
    result = tl.sum(total, 0)
    if k < KK:
        tl.store(d_weight_ptr + c * KK + k, result.to(d_weight_ptr.dtype.element_ty), mask=c < C)
    else:
        tl.store(d_bias_ptr + c, result.to(d_bias_ptr.dtype.element_ty), mask=c < C)
