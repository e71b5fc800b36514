"""Kernels of the depthwise 3x3 convolution.

Shapes: B images, H x W pixels, C channels, d dilation.

A program walks down a strip of every d-th row, from the row above the strip to the row below it. A row that it reads
adds to the three rows of the result that it is a neighbour of; two of them stay in registers as sums that are not
complete, and dilation changes nothing. A thread of convolve_kernel takes V channels of two columns d apart, which are
neighbours of each other: it reads four pixels of a row for two of the result. In gradients_kernel a tile is PX pixels
of one row by BC channels, and each pixel is read three times (left, middle and right neighbour), all but once from the
cache.

    x           (B, H, W, C)   any strides but that channels are side by side; strides are counted in groups of V
                               channels, which tells the compiler that V channels may be read at once
    weight      (9, C)         fp32, row 3 i + j for the neighbour i - 1 rows down and j - 1 columns to the right
    y, dy       (B, H, W, C)   contiguous
    dx          (B, H, W, C)   pixels dx_pixel V apart: it may be a slice of a wider tensor; dx_groups V >= C channels
                               of it are written, zeros behind the image's own
    parts       (P, 10, C)     fp32 sums of the gradients of weight and bias over one strip each
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
# Sizes of images come in any number; a kernel for each divisor of theirs would only cost time to compile. Numbers of
# channels are few: convolve_kernel is compiled for each, and the distances to neighbours are then parts of its loads.
LINES = ["H", "W", "x_image", "x_row", "strips"]
SIZES = [*LINES, "rows", "groups", "x_pixel", "dilation", "residues", "blocks_w", "dx_pixel", "dx_groups"]


@triton.jit
def strip_place(
    program, H, C, dilation, residues, rows, strips, blocks_w, PX: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """(number of the strip, image, first row, number of rows, columns (PX), channels (BC)) of a program.

    The blocks of channels of a place are neighbours in time: together they read whole lines of memory.
    """
    blocks_c = tl.cdiv(C, BC)
    c = program % blocks_c * BC + tl.arange(0, BC)
    part = program // blocks_c
    w = part % blocks_w * PX + tl.arange(0, PX)
    strip = part // blocks_w % strips
    residue = part // (blocks_w * strips) % residues
    b = (part // (blocks_w * strips * residues)).to(tl.int64)
    count = tl.minimum(rows, (H - residue + dilation - 1) // dilation - strip * rows)
    return part, b, residue + strip * rows * dilation, count, w, c


@triton.jit
def column_masks(w, c, W, C, dilation):
    """Which (PX, BC) values of the left, the same and the right column exist."""
    exists_c = (c < C)[None, :]
    left = ((w >= dilation) & (w < W + dilation))[:, None] & exists_c
    return left, (w < W)[:, None] & exists_c, (w < W - dilation)[:, None] & exists_c


@triton.jit
def load_columns(row_ptr, exists, offsets, step, masks):
    """The left, the same and the right neighbour in a row; zero outside of the image."""
    return (
        tl.load(row_ptr + (offsets - step), mask=masks[0] & exists, other=0.0),
        tl.load(row_ptr + offsets, mask=masks[1] & exists, other=0.0),
        tl.load(row_ptr + (offsets + step), mask=masks[2] & exists, other=0.0),
    )


@triton.jit
def load_weights(weight_ptr, c, C):
    """The nine weights of the block's channels, (1, BC) each."""
    weights = ()
    for k in tl.static_range(9):
        weights += (tl.load(weight_ptr + k * C + c, mask=c < C, other=0.0)[None, :],)
    return weights


@triton.jit
def sigmoid(v):
    """1 / (1 + exp(-v)), through the reciprocal square root: one instruction, where a division is five."""
    root = tl.rsqrt(1.0 + tl.exp2(v * -LOG2_E))
    return root * root


@triton.jit(do_not_specialize=[*LINES, "across", "down"])
def convolve_kernel(
    x_ptr, weight_ptr, bias_ptr, dy_ptr, y_ptr, H, W, x_image, x_row, strips, across, down,
    C: tl.constexpr, X_PIXEL: tl.constexpr, DILATION: tl.constexpr, V: tl.constexpr, THREADS: tl.constexpr,
    ROWS: tl.constexpr, UNROLL: tl.constexpr, BIAS: tl.constexpr, SILU: tl.constexpr, SLOPE: tl.constexpr,
):  # fmt: skip
    """y = convolution + bias. SILU: its SiLU. SLOPE: dy times the slope of SiLU there. X_PIXEL: counted in channels.

    A line is shared among `across` programs; an image has `down` strips, with those of all residues.
    """
    GROUPS: tl.constexpr = C // V
    program = tl.program_id(0)
    thread = program % across * THREADS + tl.arange(0, THREADS)[:, None]
    c = thread % GROUPS * V + tl.arange(0, V)[None, :]
    pair = thread // GROUPS
    w = pair // DILATION * (2 * DILATION) + pair % DILATION
    exists = ((w >= DILATION) & (w < W), w < W, w + DILATION < W, w + 2 * DILATION < W)
    weights = ()
    for k in tl.static_range(9):
        weights += (tl.load(weight_ptr + k * C + c),)
    bias = tl.zeros([THREADS, V], tl.float32)
    if BIAS:
        bias += tl.load(bias_ptr + c).to(tl.float32)
    b = (program // (across * down)).to(tl.int64)
    strip = program // across % down
    residue, skipped = strip // strips, strip % strips * ROWS
    count = tl.minimum(ROWS, (H - residue + DILATION - 1) // DILATION - skipped)
    h = residue + (skipped - 1) * DILATION
    x_ptr += (b * x_image + h.to(tl.int64) * x_row) * V + (w * X_PIXEL + c)
    y_place = (b * H + h - DILATION) * W * C + (w * C + c)
    y_ptr += y_place
    dy_ptr += y_place
    x_step = x_row.to(tl.int64) * (DILATION * V)
    y_step = W.to(tl.int64) * (DILATION * C)
    current, below = (bias, bias), (bias, bias)
    for row in range(0, count + 2, UNROLL):
        # All loads of the turn before its first store, so that they are under way together.
        columns = ()
        slopes = ()
        for u in tl.static_range(UNROLL):
            # Rows above the image are large numbers then: one comparison instead of two.
            inside = (h + u * DILATION).to(tl.uint32) < H.to(tl.uint32)
            for k in tl.static_range(4):
                source = x_ptr + u * x_step + (k - 1) * DILATION * X_PIXEL
                columns += (tl.load(source, mask=exists[k] & inside, other=0.0),)
            if SLOPE:
                stored = (row + u >= 2) & (row + u - 2 < count)
                for k in tl.static_range(2):
                    source = dy_ptr + u * y_step + k * DILATION * C
                    slopes += (tl.load(source, mask=exists[k + 1] & stored, other=0.0),)
        for u in tl.static_range(UNROLL):
            stored = (row + u >= 2) & (row + u - 2 < count)
            next_current, next_below = (), ()
            for k in tl.static_range(2):
                left = columns[4 * u + k].to(tl.float32)
                middle = columns[4 * u + k + 1].to(tl.float32)
                right = columns[4 * u + k + 2].to(tl.float32)
                y = current[k] + left * weights[6] + middle * weights[7] + right * weights[8]
                next_current += (below[k] + left * weights[3] + middle * weights[4] + right * weights[5],)
                next_below += (bias + left * weights[0] + middle * weights[1] + right * weights[2],)
                if SILU:
                    y *= sigmoid(y)
                if SLOPE:
                    s = sigmoid(y)
                    y = slopes[2 * u + k].to(tl.float32) * s * (1.0 + y * (1.0 - s))
                target = y_ptr + u * y_step + k * DILATION * C
                tl.store(target, y.to(y_ptr.dtype.element_ty), mask=exists[k + 1] & stored)
            current, below = next_current, next_below
        x_ptr += UNROLL * x_step
        y_ptr += UNROLL * y_step
        dy_ptr += UNROLL * y_step
        h += UNROLL * DILATION


@triton.jit(do_not_specialize=SIZES)
def gradients_kernel(
    x_ptr, weight_ptr, dy_ptr, dx_ptr, parts_ptr,
    H, W, groups, x_image, x_row, x_pixel, dilation, residues, rows, strips, blocks_w, dx_pixel, dx_groups,
    V: tl.constexpr, PX: tl.constexpr, BC: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """dx, and the strip's sums for the gradients of weight and bias; dy is the gradient of the convolution itself.

    Both need the neighbours of dy: of x, only the tile's own pixels are read.
    """
    C = groups * V
    part, b, h, count, w, c = strip_place(
        tl.program_id(0), H, C, dilation, residues, rows, strips, blocks_w, PX, BC
    )  # fmt: skip
    masks = column_masks(w, c, W, C, dilation)
    weights = load_weights(weight_ptr, c, C)
    offsets = w[:, None] * (x_pixel * V) + c[None, :]
    places = w[:, None] * C + c[None, :]
    x_ptr += (b * x_image + h.to(tl.int64) * x_row) * V
    row_place = (b * H + h - dilation) * W * C
    dx_places = w[:, None] * (dx_pixel * V) + c[None, :]
    dx_mask = (w < W)[:, None] & (c < dx_groups * V)[None, :]
    dx_step = dilation.to(tl.int64) * W * (dx_pixel * V)
    dx_ptr += (b * H + h - 2 * dilation) * W * (dx_pixel * V)
    x_step = dilation.to(tl.int64) * x_row * V
    step = dilation.to(tl.int64) * W * C
    zero = tl.zeros([PX, BC], tl.float32)
    current, below, x_above, x_same, d_bias = zero, zero, zero, zero, zero
    d_0, d_1, d_2, d_3, d_4, d_5, d_6, d_7, d_8 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    h -= dilation
    for row in range(0, count + 2, UNROLL):
        columns = ()
        pixels = ()
        for u in tl.static_range(UNROLL):
            r = h + u * dilation
            columns += (load_columns(dy_ptr + row_place + u * step, (r >= 0) & (r < H), places, dilation * C, masks),)
            pixels += (tl.load(x_ptr + u * x_step + offsets, mask=masks[1] & (row + u < count), other=0.0),)
        for u in tl.static_range(UNROLL):
            left = columns[u][0].to(tl.float32)
            middle = columns[u][1].to(tl.float32)
            right = columns[u][2].to(tl.float32)
            x_below = pixels[u].to(tl.float32)
            dx = current + right * weights[0] + middle * weights[1] + left * weights[2]
            current = below + right * weights[3] + middle * weights[4] + left * weights[5]
            below = right * weights[6] + middle * weights[7] + left * weights[8]
            d_0 += x_above * right
            d_1 += x_above * middle
            d_2 += x_above * left
            d_3 += x_same * right
            d_4 += x_same * middle
            d_5 += x_same * left
            d_6 += x_below * right
            d_7 += x_below * middle
            d_8 += x_below * left
            d_bias += tl.where((row + u >= 1) & (row + u - 1 < count), middle, 0.0)
            x_above, x_same = x_same, x_below
            target = dx_ptr + u * dx_step + dx_places
            stored = (row + u >= 2) & (row + u - 2 < count)
            tl.store(target, dx.to(dx_ptr.dtype.element_ty), mask=dx_mask & stored)
        x_ptr += UNROLL * x_step
        row_place += UNROLL * step
        dx_ptr += UNROLL * dx_step
        h += UNROLL * dilation
    # dy of a pixel past the image's right end was read as a left neighbour; x there is zero, and dy is masked.
    d_weights = (d_0, d_1, d_2, d_3, d_4, d_5, d_6, d_7, d_8, d_bias)
    parts_ptr += part.to(tl.int64) * 10 * C + c
    for k in tl.static_range(10):
        tl.store(parts_ptr + k * C, tl.sum(d_weights[k], 0), mask=c < C)


@triton.jit(do_not_specialize=["parts", "C"])
def sum_parts_kernel(parts_ptr, d_weight_ptr, d_bias_ptr, parts, C, BP: tl.constexpr, BC: tl.constexpr):
    """d_weight (C, 9) and d_bias (C) from their parts, always in the same order."""
    k = tl.program_id(1)
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    p = tl.arange(0, BP)
    total = tl.zeros([BP, BC], tl.float32)
    parts_ptr += k * C + c[None, :]
    for first in range(0, parts, BP):
        place = (first + p).to(tl.int64)[:, None]
        total += tl.load(parts_ptr + place * (10 * C), mask=(place < parts) & (c < C)[None, :], other=0.0)
    result = tl.sum(total, 0)
    if k < 9:
        tl.store(d_weight_ptr + c * 9 + k, result.to(d_weight_ptr.dtype.element_ty), mask=c < C)
    else:
        tl.store(d_bias_ptr + c, result.to(d_bias_ptr.dtype.element_ty), mask=c < C)
