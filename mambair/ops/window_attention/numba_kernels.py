"""Compiled kernels of window_attention for the CPU: windows are read where they lie in the image.

The lanes of a vector are 16 queries of one row of a window, so that their biases lie side by side in the table, and
sums over keys need no sums over lanes. A kernel call does one unit of work: one head of one strip of windows, whose
keys, values and table fit in the first two caches.

Shapes: B images of L = H W pixels, w window size, h heads of d channels, V = ceil(w / 16) vectors for a row of queries,
M = w w keys, rounded up to a multiple of BLOCK, D = ceil(d / 16) vectors for the channels of a pixel.
"""

import math

from numba import njit

from mambair.ops.cpu.compilation import SOURCES, kernel
from mambair.ops.cpu.simd import LANES, LOG2_E, broadcast, exp2, fma, load, maximum, store

# Keys that a turn of the inner loops takes. Their sums in registers hide the latency of fused multiplications.
BLOCK = 4
LOWEST = -1e30  # a score that gives no attention, and can be subtracted without overflow
# Rows of the penalties: what keys before and after the seam between columns cost the queries in the lanes, what keys
# across the seam between rows cost all of them, and what fills up the last block of keys.
ACROSS_ROWS, NO_KEY = 2, 3


@njit(error_model="numpy")
def place_window(strip, column, height, width, window, shift, masked, pixels, row_sides, column_sides, penalties):
    """Where the pixels of a window lie in the image, and which of them do not see each other.

    pixels (w w): numbers of the pixels.  row_sides, column_sides (M): 1 for keys that were rolled in from the other
    end.  penalties (4, V, 16): see ACROSS_ROWS.  Returns the first row of queries that was rolled in, w if none was.
    """
    seam_row = window - shift if shift > 0 and (strip + 1) * window == height else window
    seam_column = window - shift if shift > 0 and (column + 1) * window == width else window
    for i in range(window):
        row = (strip * window + i + shift) % height
        for j in range(window):
            pixels[i * window + j] = row * width + (column * window + j + shift) % width
            row_sides[i * window + j] = 1 if i >= seam_row else 0
            column_sides[i * window + j] = 1 if j >= seam_column else 0
    for key in range(window * window, row_sides.shape[0]):
        row_sides[key], column_sides[key] = 0, NO_KEY
    for part in range(penalties.shape[1]):
        for lane in range(LANES):
            late = part * LANES + lane >= seam_column
            penalties[0, part, lane] = -masked if late else 0.0
            penalties[1, part, lane] = 0.0 if late else -masked
            penalties[ACROSS_ROWS, part, lane] = -masked
            penalties[NO_KEY, part, lane] = LOWEST
    return seam_row


@njit(error_model="numpy")
def gather_queries(window, pixels, image, head, factor, target):
    """target (w, V, d, 16) = factor * the head's channels of the pixels of image (L, h, d); zeros in lanes beyond w."""
    for i in range(window):
        for part in range(target.shape[1]):
            lanes = min(LANES, window - part * LANES)
            for c in range(target.shape[2]):
                store(target, (i, part, c), broadcast(0.0))
            for lane in range(lanes):
                pixel = pixels[i * window + part * LANES + lane]
                for c in range(target.shape[2]):
                    target[i, part, c, lane] = image[pixel, head, c] * factor


@njit(error_model="numpy")
def gather_rows(count, pixels, image, head, target):
    """target (M or w w, d or more) = the head's channels of the pixels of image (L, h, d), and zeros around them."""
    channels = image.shape[2]
    for key in range(target.shape[0]):
        if key < count:
            for c in range(channels):
                target[key, c] = image[pixels[key], head, c]
            for c in range(channels, target.shape[1]):
                target[key, c] = 0.0
        else:
            for c in range(target.shape[1]):
                target[key, c] = 0.0


@njit(error_model="numpy")
def add_products(left, row, part, right, key, a, b, c, d):
    """a, b, c, d + left[row, part] . right[key], [key + 1] ...; left (w, V, channels, 16), right (M, channels)."""
    for channel in range(right.shape[1]):
        factor = load(left, (row, part, channel))
        a = fma(factor, broadcast(right[key, channel]), a)
        b = fma(factor, broadcast(right[key + 1, channel]), b)
        c = fma(factor, broadcast(right[key + 2, channel]), c)
        d = fma(factor, broadcast(right[key + 3, channel]), d)
    return a, b, c, d


@njit(error_model="numpy")
def first_score(table, place, penalties, part, key, late, offsets, row_sides, column_sides):
    """Bias and penalty of a key for the queries in the lanes; `late` is 1 for a row of queries after the seam."""
    kind = column_sides[key]
    if row_sides[key] != late and kind != NO_KEY:
        kind = ACROSS_ROWS
    return load(table, (place + offsets[key],)) + load(penalties, (kind, part))


@njit(error_model="numpy")
def compute_scores(
    row, part, late, queries, keys, table, stride, offsets, row_sides, column_sides, penalties, scores
):  # fmt: skip
    """scores (M, 16) of one vector of queries, in units of log2(e); returns their largest."""
    place = row * stride + part * LANES
    most = broadcast(LOWEST)
    for key in range(0, keys.shape[0], BLOCK):
        a, b, c, d = add_products(
            queries, row, part, keys, key,
            first_score(table, place, penalties, part, key, late, offsets, row_sides, column_sides),
            first_score(table, place, penalties, part, key + 1, late, offsets, row_sides, column_sides),
            first_score(table, place, penalties, part, key + 2, late, offsets, row_sides, column_sides),
            first_score(table, place, penalties, part, key + 3, late, offsets, row_sides, column_sides),
        )  # fmt: skip
        store(scores, (key,), a)
        store(scores, (key + 1,), b)
        store(scores, (key + 2,), c)
        store(scores, (key + 3,), d)
        most = maximum(most, maximum(maximum(a, b), maximum(c, d)))
    return most


@njit(error_model="numpy")
def add_weighted(a, b, c, d, rows, key, target):
    """target (channels, 16) += a rows[key] + b rows[key + 1] ...; rows (M, channels)."""
    for channel in range(target.shape[0]):
        total = load(target, (channel,))
        total = fma(a, broadcast(rows[key, channel]), total)
        total = fma(b, broadcast(rows[key + 1, channel]), total)
        total = fma(c, broadcast(rows[key + 2, channel]), total)
        store(target, (channel,), fma(d, broadcast(rows[key + 3, channel]), total))


@njit(error_model="numpy")
def find_offsets(window, stride, offsets):
    """offsets (M): where the biases of a key begin in the table, for the first query of a window."""
    for k in range(window):
        for across in range(window):
            offsets[k * window + across] = (window - 1 - k) * stride + window - 1 - across
    for key in range(window * window, offsets.shape[0]):
        offsets[key] = 0


@kernel
def forward_unit(
    unit,
    height,
    width,
    window,
    shift,
    masked,
    stride,
    qkv,
    table,
    output,
    norms,
    pixels,
    offsets,
    row_sides,
    column_sides,
    penalties,
    queries,
    keys,
    values,
    scores,
    sums,
    sources=SOURCES,
):
    """Output and, if `norms` is not empty, the logarithms of the sums that scores are divided by.

    masked: what keys on the other side of a seam cost, in units of log2(e), as are table and norms.
    qkv: (B, L, 3, h, d).  table: (h, (2w - 1) stride): rows of biases, each followed by zeros up to `stride`, so that
    lanes beyond a window read something.  output: (B, L, h, d).  norms: (B, H/w, W/w, h, w, V, 16), infinite in lanes
    beyond w.  The rest are one worker's buffers, as in the functions above; scores (M, 16), sums (d, 16).
    """
    heads, channels = qkv.shape[3], qkv.shape[4]
    strips = height // window
    head, strip, image = unit % heads, unit // heads % strips, unit // (heads * strips)
    find_offsets(window, stride, offsets)
    factor = LOG2_E / math.sqrt(channels)
    for column in range(width // window):
        seam_row = place_window(
            strip, column, height, width, window, shift, masked, pixels, row_sides, column_sides, penalties
        )
        gather_queries(window, pixels, qkv[image, :, 0], head, factor, queries)
        gather_rows(window * window, pixels, qkv[image, :, 1], head, keys)
        gather_rows(window * window, pixels, qkv[image, :, 2], head, values)
        for row in range(window):
            late = 1 if row >= seam_row else 0
            for part in range(queries.shape[1]):
                most = compute_scores(
                    row, part, late, queries, keys, table[head], stride, offsets, row_sides, column_sides, penalties,
                    scores,
                )  # fmt: skip
                for channel in range(channels):
                    store(sums, (channel,), broadcast(0.0))
                total = broadcast(0.0)
                for key in range(0, keys.shape[0], BLOCK):
                    a, b = exp2(load(scores, (key,)) - most), exp2(load(scores, (key + 1,)) - most)
                    c, d = exp2(load(scores, (key + 2,)) - most), exp2(load(scores, (key + 3,)) - most)
                    total = total + ((a + b) + (c + d))
                    add_weighted(a, b, c, d, values, key, sums)
                for channel in range(channels):
                    store(sums, (channel,), load(sums, (channel,)) / total)
                lanes = min(LANES, window - part * LANES)
                for lane in range(lanes):
                    pixel = pixels[row * window + part * LANES + lane]
                    for channel in range(channels):
                        output[image, pixel, head, channel] = sums[channel, lane]
                if norms.shape[0] > 0:
                    kept = norms[image, strip, column, head]
                    store(scores, (0,), total)
                    store(kept, (row, part), most)
                    for lane in range(lanes):
                        kept[row, part, lane] += math.log2(scores[0, lane])
                    for lane in range(lanes, LANES):
                        kept[row, part, lane] = -LOWEST


@njit(error_model="numpy")
def add_bias_gradients(window, row, part, stride, offsets, gradients, table):
    """Add the gradients (M, 16) of one vector of queries to those of the table.

    Row by row for each column of keys: neighbouring keys of a row overlap in the table, and reading what has just been
    written in part stalls the processor.
    """
    place = row * stride + part * LANES
    for across in range(window):
        for k in range(window):
            key = k * window + across
            store(table, (place + offsets[key],), load(table, (place + offsets[key],)) + load(gradients, (key,)))


@njit(error_model="numpy")
def add_outer(first, lanes, weights, rows, target):
    """target (M, 16 D) += weights (M, 16) times rows first, first + 1 ... of rows (w w, 16 D), one for each lane."""
    for key in range(0, target.shape[0], BLOCK):
        for column in range(0, target.shape[1], LANES):
            a, b = load(target, (key, column)), load(target, (key + 1, column))
            c, d = load(target, (key + 2, column)), load(target, (key + 3, column))
            for lane in range(lanes):
                values = load(rows, (first + lane, column))
                a = fma(broadcast(weights[key, lane]), values, a)
                b = fma(broadcast(weights[key + 1, lane]), values, b)
                c = fma(broadcast(weights[key + 2, lane]), values, c)
                d = fma(broadcast(weights[key + 3, lane]), values, d)
            store(target, (key, column), a)
            store(target, (key + 1, column), b)
            store(target, (key + 2, column), c)
            store(target, (key + 3, column), d)


@kernel
def backward_unit(
    unit,
    height,
    width,
    window,
    shift,
    masked,
    stride,
    qkv,
    table,
    norms,
    y,
    dy,
    d_qkv,
    d_table,
    pixels,
    offsets,
    row_sides,
    column_sides,
    penalties,
    queries,
    keys,
    values,
    scores,
    sums,
    d_queries,
    weights,
    query_rows,
    d_rows,
    d_keys,
    d_values,
    sources=SOURCES,
):
    """Every gradient of one unit; arguments as in `forward_unit`, and

    y, dy: as output.  d_qkv: as qkv.  d_table: (units, (2w - 1) stride), not in units of log2(e).
    Buffers: d_queries (w, V, d, 16), the gradient of the output in queries' layout; weights (M, 16); query_rows and
    d_rows (w w, 16 D); d_keys and d_values (M, 16 D).
    """
    heads, channels = qkv.shape[3], qkv.shape[4]
    strips = height // window
    head, strip, image = unit % heads, unit // heads % strips, unit // (heads * strips)
    find_offsets(window, stride, offsets)
    scale = 1.0 / math.sqrt(channels)
    d_table[unit] = 0.0
    for column in range(width // window):
        seam_row = place_window(
            strip, column, height, width, window, shift, masked, pixels, row_sides, column_sides, penalties
        )
        count = window * window
        gather_queries(window, pixels, qkv[image, :, 0], head, scale * LOG2_E, queries)
        gather_queries(window, pixels, dy[image], head, 1.0, d_queries)
        gather_rows(count, pixels, qkv[image, :, 0], head, query_rows)
        gather_rows(count, pixels, qkv[image, :, 1], head, keys)
        gather_rows(count, pixels, qkv[image, :, 2], head, values)
        gather_rows(count, pixels, dy[image], head, d_rows)
        d_keys[:] = 0.0
        d_values[:] = 0.0
        for row in range(window):
            late = 1 if row >= seam_row else 0
            for part in range(queries.shape[1]):
                lanes = min(LANES, window - part * LANES)
                compute_scores(
                    row, part, late, queries, keys, table[head], stride, offsets, row_sides, column_sides, penalties,
                    scores,
                )  # fmt: skip
                # The common part of a query's gradients, dy . y.
                store(sums, (0,), broadcast(0.0))
                for lane in range(lanes):
                    pixel = pixels[row * window + part * LANES + lane]
                    for channel in range(channels):
                        sums[0, lane] += dy[image, pixel, head, channel] * y[image, pixel, head, channel]
                common, norm = load(sums, (0,)), load(norms, (image, strip, column, head, row, part))
                for channel in range(channels):
                    store(sums, (channel,), broadcast(0.0))
                for key in range(0, keys.shape[0], BLOCK):
                    zero = broadcast(0.0)
                    a, b, c, d = add_products(d_queries, row, part, values, key, zero, zero, zero, zero)
                    p, q = exp2(load(scores, (key,)) - norm), exp2(load(scores, (key + 1,)) - norm)
                    r, s = exp2(load(scores, (key + 2,)) - norm), exp2(load(scores, (key + 3,)) - norm)
                    store(weights, (key,), p)
                    store(weights, (key + 1,), q)
                    store(weights, (key + 2,), r)
                    store(weights, (key + 3,), s)
                    a, b, c, d = p * (a - common), q * (b - common), r * (c - common), s * (d - common)
                    store(scores, (key,), a)
                    store(scores, (key + 1,), b)
                    store(scores, (key + 2,), c)
                    store(scores, (key + 3,), d)
                    add_weighted(a, b, c, d, keys, key, sums)
                add_bias_gradients(window, row, part, stride, offsets, scores, d_table[unit])
                first = row * window + part * LANES
                add_outer(first, lanes, weights, d_rows, d_values)
                add_outer(first, lanes, scores, query_rows, d_keys)
                for lane in range(lanes):
                    for channel in range(channels):
                        d_qkv[image, pixels[first + lane], 0, head, channel] = sums[channel, lane] * scale
        for key in range(count):
            for channel in range(channels):
                d_qkv[image, pixels[key], 1, head, channel] = d_keys[key, channel] * scale
                d_qkv[image, pixels[key], 2, head, channel] = d_values[key, channel]
