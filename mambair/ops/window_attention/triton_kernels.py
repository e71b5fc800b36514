"""Kernels of window attention, which read windows where they lie in the image, shifted or not.

Shapes: B images, H x W pixels, w window size, L = w w pixels of a window, h heads of d channels, C = h d; n windows of
all images; BL, BD: L and d padded to powers of two. Heads may come padded already: `scale` is that of the channels that
count.

    qkv, d_qkv  (B, H, W, 3C)  queries, keys and values, each with one head after the other
    y, dy       (B, H, W, C)
    bias        (h, L, L)      of every query and key, times sqrt(d); fp16 for half-precision inputs, else fp32
    norms       (n, h, L)      fp32 log2 of the sum of exp2 of a query's scores
    deltas      (n, h, L)      fp32 sum of dy * y over a query's channels
    sums        (G, h, L, L)   fp32 gradients of the scores, summed over a share of the windows

A program treats a block of queries or keys of one head: scores and probabilities never leave it. All windows share the
biases, which are spread out once: looked up in the table for every score, they took more instructions than everything
else. Which pixels may see each other follows from their places: no tensor of masks is ever made.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
# C is looked at: where it is a multiple of 16, heads can be loaded several channels at a time.
SIZES = ["H", "W", "shift"]


@triton.jit
def spread_bias_kernel(table_ptr, bias_ptr, factor, w: tl.constexpr, L: tl.constexpr, BL: tl.constexpr):
    """bias_table ((2w - 1)^2, h), times factor -> bias; a program has one query of one head."""
    head, heads, p = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    k = tl.arange(0, BL)
    place = (p // w - k // w + w - 1) * (2 * w - 1) + p % w - k % w + w - 1
    value = tl.load(table_ptr + place * heads + head, mask=k < L, other=0.0).to(tl.float32) * factor
    target = bias_ptr + (head * L + p) * L + k
    tl.store(target, value.to(bias_ptr.dtype.element_ty), mask=k < L)


@triton.jit
def head_and_window(C, d: tl.constexpr):
    """(head, number of heads, window) of a program, a window's heads one after the other.

    In one dimension, the only one in which CUDA takes more than 65535 programs: a photo of 24 megapixels has more
    windows than that.
    """
    heads = C // d
    return tl.program_id(0) % heads, heads, tl.program_id(0) // heads


@triton.jit
def place_in_window(window, p, H, W, shift, w: tl.constexpr, L: tl.constexpr):
    """(pixel number in all images, region, exists) of pixels p.

    Of a shifted window, region tells on which side of the image's seams a pixel lies: 0 where there is none.
    """
    across = W // w
    down = H // w
    j = window % across
    i = window // across % down
    b = (window // (across * down)).to(tl.int64)
    row, column = p // w, p % w
    y, x = i * w + row + shift, j * w + column + shift
    region = tl.where(y >= H, 2, 0) + tl.where(x >= W, 1, 0)
    y = tl.where(y >= H, y - H, y)
    x = tl.where(x >= W, x - W, x)
    return (b * H + y) * W + x, region, p < L


@triton.jit
def load_rows(ptr, pixels, exists, stride, d: tl.constexpr, BD: tl.constexpr):
    """(pixels, BD): d channels of every pixel, zero where there are none."""
    channel = tl.arange(0, BD)[None, :]
    return tl.load(ptr + pixels[:, None] * stride + channel, mask=exists[:, None] & (channel < d), other=0.0)


@triton.jit
def store_rows(ptr, values, pixels, exists, stride, d: tl.constexpr, BD: tl.constexpr):
    channel = tl.arange(0, BD)[None, :]
    mask = exists[:, None] & (channel < d)
    tl.store(ptr + pixels[:, None] * stride + channel, values.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def biases(bias_ptr, q_p, k_p, L: tl.constexpr, BL: tl.constexpr):
    """(queries q_p, keys k_p): -inf where there are none."""
    place = bias_ptr + q_p[:, None] * L + k_p[None, :]
    if L == BL:
        bias = tl.load(place)
    else:
        bias = tl.load(place, mask=(q_p < L)[:, None] & (k_p < L)[None, :], other=float("-inf"))
    return bias.to(tl.float32)


@triton.jit
def scores(q, k, bias, q_region, k_region, scale, SHIFTED: tl.constexpr, PRECISION: tl.constexpr):
    """(queries, keys), in units of log2(e): -inf for keys that a query must not see.

    The product starts from the biases, which leaves everything behind them in the layout of products.
    """
    s = tl.dot(q, tl.trans(k), bias, input_precision=PRECISION) * scale
    if SHIFTED:
        s = tl.where(q_region[:, None] == k_region[None, :], s, float("-inf"))
    return s


@triton.jit(do_not_specialize=SIZES)
def attention_kernel(
    qkv_ptr, bias_ptr, y_ptr, norms_ptr, H, W, C, shift, scale,
    w: tl.constexpr, L: tl.constexpr, BL: tl.constexpr, d: tl.constexpr, BD: tl.constexpr, BQ: tl.constexpr,
    BK: tl.constexpr, SHIFTED: tl.constexpr, PRECISION: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """y, and norms if KEEP, of one block of queries; the keys block by block."""
    head, heads, window = head_and_window(C, d)
    bias_ptr += head * (L * L)
    norms_ptr += (window.to(tl.int64) * heads + head) * L
    qkv_ptr += head * d
    y_ptr += head * d
    p = tl.program_id(1) * BQ + tl.arange(0, BQ)
    q_pixels, q_region, q_exists = place_in_window(window, p, H, W, shift, w, L)
    q = load_rows(qkv_ptr, q_pixels, q_exists, 3 * C, d, BD)
    # A query that is only padding may see no key.
    largest = tl.full([BQ], -1e30, tl.float32)
    total = tl.zeros([BQ], tl.float32)
    y = tl.zeros([BQ, BD], tl.float32)
    for first in range(0, L, BK):
        k_p = first + tl.arange(0, BK)
        pixels, k_region, exists = place_in_window(window, k_p, H, W, shift, w, L)
        k = load_rows(qkv_ptr + C, pixels, exists, 3 * C, d, BD)
        v = load_rows(qkv_ptr + 2 * C, pixels, exists, 3 * C, d, BD)
        bias = biases(bias_ptr, p, k_p, L, BL)
        s = scores(q, k, bias, q_region, k_region, scale, SHIFTED, PRECISION)
        before = largest
        largest = tl.maximum(before, tl.max(s, 1))
        s = tl.exp2(s - largest[:, None])
        fade = tl.exp2(before - largest)
        total = total * fade + tl.sum(s, 1)
        y = tl.dot(s.to(v.dtype), v, y * fade[:, None], input_precision=PRECISION)
    total = tl.maximum(total, 1e-30)
    store_rows(y_ptr, y / total[:, None], q_pixels, q_exists, C, d, BD)
    if KEEP:
        tl.store(norms_ptr + p, largest + tl.log2(total), mask=q_exists)


@triton.jit(do_not_specialize=SIZES)
def query_gradients_kernel(
    qkv_ptr, bias_ptr, y_ptr, dy_ptr, norms_ptr, deltas_ptr, d_qkv_ptr, H, W, C, shift, scale,
    w: tl.constexpr, L: tl.constexpr, BL: tl.constexpr, d: tl.constexpr, BD: tl.constexpr, BQ: tl.constexpr,
    BK: tl.constexpr, SHIFTED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The queries' part of d_qkv, and deltas, of one block of queries; the keys block by block.

    `key_gradients_kernel` computes the scores once more: blocks of both fit into registers, all queries at once do not.
    """
    head, heads, window = head_and_window(C, d)
    bias_ptr += head * (L * L)
    kept = (window.to(tl.int64) * heads + head) * L
    qkv_ptr += head * d
    p = tl.program_id(1) * BQ + tl.arange(0, BQ)
    q_pixels, q_region, q_exists = place_in_window(window, p, H, W, shift, w, L)
    q = load_rows(qkv_ptr, q_pixels, q_exists, 3 * C, d, BD)
    dy = load_rows(dy_ptr + head * d, q_pixels, q_exists, C, d, BD)
    y = load_rows(y_ptr + head * d, q_pixels, q_exists, C, d, BD)
    delta = tl.sum(y.to(tl.float32) * dy.to(tl.float32), 1)
    tl.store(deltas_ptr + kept + p, delta, mask=q_exists)
    norm = tl.load(norms_ptr + kept + p, mask=q_exists, other=0.0)
    dq = tl.zeros([BQ, BD], tl.float32)
    for first in range(0, L, BK):
        k_p = first + tl.arange(0, BK)
        pixels, k_region, exists = place_in_window(window, k_p, H, W, shift, w, L)
        k = load_rows(qkv_ptr + C, pixels, exists, 3 * C, d, BD)
        v = load_rows(qkv_ptr + 2 * C, pixels, exists, 3 * C, d, BD)
        bias = biases(bias_ptr, p, k_p, L, BL)
        s = scores(q, k, bias, q_region, k_region, scale, SHIFTED, PRECISION)
        s = tl.exp2(s - norm[:, None])
        ds = (s * (tl.dot(dy, tl.trans(v), input_precision=PRECISION) - delta[:, None])).to(q.dtype)
        dq = tl.dot(ds, k, dq, input_precision=PRECISION)
    store_rows(d_qkv_ptr + head * d, dq * (scale / LOG2_E), q_pixels, q_exists, 3 * C, d, BD)


@triton.jit(do_not_specialize=SIZES)
def key_gradients_kernel(
    qkv_ptr, bias_ptr, dy_ptr, norms_ptr, deltas_ptr, d_qkv_ptr, H, W, C, shift, scale,
    w: tl.constexpr, L: tl.constexpr, BL: tl.constexpr, d: tl.constexpr, BD: tl.constexpr, BQ: tl.constexpr,
    BK: tl.constexpr, SHIFTED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The keys' and values' part of d_qkv, of one block of keys; the queries block by block."""
    head, heads, window = head_and_window(C, d)
    bias_ptr += head * (L * L)
    kept = (window.to(tl.int64) * heads + head) * L
    qkv_ptr += head * d
    k_p = tl.program_id(1) * BK + tl.arange(0, BK)
    k_pixels, k_region, k_exists = place_in_window(window, k_p, H, W, shift, w, L)
    k = load_rows(qkv_ptr + C, k_pixels, k_exists, 3 * C, d, BD)
    v = load_rows(qkv_ptr + 2 * C, k_pixels, k_exists, 3 * C, d, BD)
    dk = tl.zeros([BK, BD], tl.float32)
    dv = tl.zeros([BK, BD], tl.float32)
    for first in range(0, L, BQ):
        p = first + tl.arange(0, BQ)
        pixels, q_region, exists = place_in_window(window, p, H, W, shift, w, L)
        q = load_rows(qkv_ptr, pixels, exists, 3 * C, d, BD)
        dy = load_rows(dy_ptr + head * d, pixels, exists, C, d, BD)
        norm = tl.load(norms_ptr + kept + p, mask=exists, other=0.0)
        delta = tl.load(deltas_ptr + kept + p, mask=exists, other=0.0)
        bias = biases(bias_ptr, p, k_p, L, BL)
        s = scores(q, k, bias, q_region, k_region, scale, SHIFTED, PRECISION)
        s = tl.exp2(s - norm[:, None])
        dv = tl.dot(tl.trans(s.to(dy.dtype)), dy, dv, input_precision=PRECISION)
        ds = (s * (tl.dot(dy, tl.trans(v), input_precision=PRECISION) - delta[:, None])).to(q.dtype)
        dk = tl.dot(tl.trans(ds), q, dk, input_precision=PRECISION)
    d_qkv_ptr += head * d
    store_rows(d_qkv_ptr + C, dk * (scale / LOG2_E), k_pixels, k_exists, 3 * C, d, BD)
    store_rows(d_qkv_ptr + 2 * C, dv, k_pixels, k_exists, 3 * C, d, BD)


@triton.jit(do_not_specialize=[*SIZES, "windows", "share"])
def score_sums_kernel(
    qkv_ptr, bias_ptr, dy_ptr, norms_ptr, deltas_ptr, sums_ptr, H, W, C, shift, scale, windows, share,
    w: tl.constexpr, L: tl.constexpr, BL: tl.constexpr, d: tl.constexpr, BD: tl.constexpr, BQ: tl.constexpr,
    BK: tl.constexpr, SHIFTED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """sums: gradients of the scores of a block of queries and keys, added up over a share of the windows.

    They are computed once more instead of being written by `key_gradients_kernel`, which would be L / d times as much
    memory as the gradients themselves; and added up in registers, always in the same order.
    """
    head, heads = tl.program_id(0), tl.num_programs(0)
    BLOCKS: tl.constexpr = (L + BK - 1) // BK
    p = tl.program_id(1) // BLOCKS * BQ + tl.arange(0, BQ)
    k_p = tl.program_id(1) % BLOCKS * BK + tl.arange(0, BK)
    bias = biases(bias_ptr + head * (L * L), p, k_p, L, BL)
    qkv_ptr += head * d
    total = tl.zeros([BQ, BK], tl.float32)
    first = tl.program_id(2) * share
    for window in range(first, tl.minimum(first + share, windows)):
        pixels, k_region, k_exists = place_in_window(window, k_p, H, W, shift, w, L)
        k = load_rows(qkv_ptr + C, pixels, k_exists, 3 * C, d, BD)
        v = load_rows(qkv_ptr + 2 * C, pixels, k_exists, 3 * C, d, BD)
        pixels, q_region, exists = place_in_window(window, p, H, W, shift, w, L)
        q = load_rows(qkv_ptr, pixels, exists, 3 * C, d, BD)
        dy = load_rows(dy_ptr + head * d, pixels, exists, C, d, BD)
        place = (tl.cast(window, tl.int64) * heads + head) * L + p
        norm = tl.load(norms_ptr + place, mask=exists, other=0.0)
        delta = tl.load(deltas_ptr + place, mask=exists, other=0.0)
        s = scores(q, k, bias, q_region, k_region, scale, SHIFTED, PRECISION)
        s = tl.exp2(s - norm[:, None])
        total += s * (tl.dot(dy, tl.trans(v), input_precision=PRECISION) - delta[:, None])
    place = ((tl.program_id(2) * heads + head) * L + p[:, None]).to(tl.int64) * L + k_p[None, :]
    tl.store(sums_ptr + place, total, mask=(p < L)[:, None] & (k_p < L)[None, :])


@triton.jit
def table_gradient_kernel(sums_ptr, d_table_ptr, shares, w: tl.constexpr, L: tl.constexpr, BW: tl.constexpr):
    """d_table ((2w - 1)^2, h): the sums of all pairs that lie alike; a program has one difference of rows."""
    head, heads, down = tl.program_id(0), tl.num_programs(0), tl.program_id(1) - (w - 1)
    place = tl.arange(0, BW * BW)[:, None]  # of a query
    i, j = place // BW, place % BW
    column = tl.arange(0, 2 * BW)
    k, m = i - down, j - (column[None, :] - (w - 1))  # row and column of the key
    alike = (i < w) & (j < w) & (k >= 0) & (k < w) & (m >= 0) & (m < w)
    pair = (i * w + j) * L + k * w + m
    total = tl.zeros([BW * BW, 2 * BW], tl.float32)
    for share in range(shares):
        total += tl.load(sums_ptr + (share * heads + head).to(tl.int64) * L * L + pair, mask=alike, other=0.0)
    row = tl.program_id(1) * (2 * w - 1) + column
    target = d_table_ptr + row * heads + head
    tl.store(target, tl.sum(total, 0).to(d_table_ptr.dtype.element_ty), mask=column < 2 * w - 1)
