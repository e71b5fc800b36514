"""Compiled kernels of ss2d_scan for the CPU: every direction walks the channels-last image in place.

A kernel call does one unit of work: one image of the batch, one part of the directions, one part of the channel blocks
(of 16). For each direction it goes through the pixels in that direction's order, chunk by chunk: gather x and the
projections of the chunk's pixels, compute delta from its low-rank projection, run the recurrence, and add the result
to the same pixels of the output.

Shapes: B batch, L = H W pixels, D channels in G = ceil(D / 16) blocks, K directions, R rank of delta, N states,
P = R + 2N, T = CHUNK steps, S parts of the directions, Q parts of the blocks.
"""

from numba import njit

from mambair.ops.cpu.compilation import SOURCES, kernel
from mambair.ops.cpu.recurrence import backward_chunk, clear, forward_chunk, sum_lanes
from mambair.ops.cpu.simd import (
    LANES,
    add_folded,
    broadcast,
    broadcast_at,
    exp2_of_negative,
    fma,
    load,
    sigmoid,
    softplus,
    store,
)

# Bits of a direction: walk column by column, and from the last pixel to the first.
COLUMNS = 1
REVERSED = 2


@njit(error_model="numpy")
def find_pixels(direction, first, steps, height, width, pixels):
    """pixels[t] = number of the pixel that step first + t of a direction visits."""
    for t in range(steps):
        step = first + t
        if direction & REVERSED:
            step = height * width - 1 - step
        pixels[t] = (step % height) * width + step // height if direction & COLUMNS else step


@njit(error_model="numpy")
def gather_pixels(steps, pixels, image, first_block, last_block, target):
    """target (G, T, 16) = rows of image (L, D) at `pixels`, with zeros for channels that D does not have."""
    channels = image.shape[1]
    for t in range(steps):
        pixel = pixels[t]
        for block in range(first_block, last_block):
            channel = block * LANES
            if channel + LANES <= channels:
                store(target, (block, t), load(image, (pixel, channel)))
            else:
                store(target, (block, t), broadcast(0.0))
                for lane in range(channels - channel):
                    target[block, t, lane] = image[pixel, channel + lane]


@njit(error_model="numpy")
def scatter_pixels(steps, pixels, source, first_block, last_block, image, add):
    """Rows of image (L, D) at `pixels` = source (G, T, 16), or += if `add`."""
    channels = image.shape[1]
    for t in range(steps):
        pixel = pixels[t]
        for block in range(first_block, last_block):
            channel = block * LANES
            if channel + LANES <= channels:
                value = load(source, (block, t))
                if add:
                    value = value + load(image, (pixel, channel))
                store(image, (pixel, channel), value)
            else:
                for lane in range(channels - channel):
                    before = image[pixel, channel + lane] if add else source.dtype.type(0)
                    image[pixel, channel + lane] = before + source[block, t, lane]


@njit(error_model="numpy")
def copy_row(source, source_row, target, target_row):
    """target[target_row] = source[source_row], rows of equal length; the last vector ends with the row."""
    columns = source.shape[1]
    if columns >= LANES:
        for first in range(0, columns, LANES):
            column = min(first, columns - LANES)
            store(target, (target_row, column), load(source, (source_row, column)))
    else:
        for column in range(columns):
            target[target_row, column] = source[source_row, column]


@njit(error_model="numpy")
def gather_projections(steps, pixels, image, target):
    """target (T, P) = one direction's image (L, P) at `pixels`."""
    for t in range(steps):
        copy_row(image, pixels[t], target, t)


@njit(error_model="numpy")
def scatter_projections(steps, pixels, source, image):
    """The inverse: one direction's image (L, P) at `pixels` = source (T, P)."""
    for t in range(steps):
        copy_row(source, t, image, pixels[t])


@njit(error_model="numpy")
def compute_delta(steps, rank, projected, weight, bias, raw, delta, block):
    """raw = weight dt + bias and delta = softplus(raw); weight (G, R, 16), bias (G, 16), raw and delta (G, T, 16)."""
    for t in range(steps):
        value = load(bias, (block,))
        for r in range(rank):
            value = fma(broadcast_at(projected, (t, r)), load(weight, (block, r)), value)
        store(raw, (block, t), value)
        store(delta, (block, t), softplus(value))


@njit(error_model="numpy")
def backpropagate_delta(steps, rank, projected, weight, raw, ddelta, dweight, dbias, sums, block):
    """From the gradient of delta to those of weight, bias (added to) and dt (added to the rows of sums, folded)."""
    dbias_block = broadcast(0.0)
    for t in range(steps):
        draw = load(ddelta, (block, t)) * sigmoid(load(raw, (block, t)))
        store(ddelta, (block, t), draw)
        dbias_block = dbias_block + draw
    store(dbias, (block,), load(dbias, (block,)) + dbias_block)
    for r in range(rank):
        weight_r = load(weight, (block, r))
        dweight_r = broadcast(0.0)
        for t in range(steps):
            draw = load(ddelta, (block, t))
            dweight_r = fma(draw, broadcast_at(projected, (t, r)), dweight_r)
            add_folded(sums, (r, t), draw * weight_r)
        store(dweight, (block, r), load(dweight, (block, r)) + dweight_r)


@njit(error_model="numpy")
def locate_unit(unit, direction_parts, block_parts, directions, blocks):
    """(image, part of the directions, its first and last direction, part of the blocks, its first and last block)."""
    block_part = unit % block_parts
    direction_part = unit // block_parts % direction_parts
    per_part = directions // direction_parts
    return (
        unit // (block_parts * direction_parts),
        direction_part,
        direction_part * per_part,
        (direction_part + 1) * per_part,
        block_part,
        block_part * blocks // block_parts,
        (block_part + 1) * blocks // block_parts,
    )


@kernel
def forward_unit(
    unit,
    direction_parts,
    block_parts,
    height,
    width,
    codes,
    x,
    projections,
    weight,
    bias,
    A,
    D,
    output,
    saved,
    pixels,
    projected,
    raw,
    delta,
    x_chunk,
    y_chunk,
    state,
    sources=SOURCES,
):
    """Output and, if `saved` is not empty, the states at the start of each chunk.

    codes (K,): bits of each direction.  x: (B, L, D).  projections: (B, L, K, P).  weight: (K, G, R, 16).
    bias, D: (K, G, 16).  A: (K, G, N, 16) in units of log2(e).  output: (S, B, L, D).
    saved: (B, K, chunks, G, N, 16).  The rest are one worker's buffers.
    """
    chunk, rank, states = projected.shape[0], weight.shape[2], A.shape[2]
    image, direction_part, k_first, k_last, _, first_block, last_block = locate_unit(
        unit, direction_parts, block_parts, codes.shape[0], A.shape[1]
    )
    length = height * width
    for k in range(k_first, k_last):
        for block in range(first_block, last_block):
            for n in range(states):
                store(state, (block, n), broadcast(0.0))
        for first in range(0, length, chunk):
            steps = min(chunk, length - first)
            find_pixels(codes[k], first, steps, height, width, pixels)
            gather_pixels(steps, pixels, x[image], first_block, last_block, x_chunk)
            gather_projections(steps, pixels, projections[image, :, k], projected)
            for block in range(first_block, last_block):
                if saved.shape[0] > 0:
                    for n in range(states):
                        store(saved, (image, k, first // chunk, block, n), load(state, (block, n)))
                compute_delta(steps, rank, projected, weight[k], bias[k], raw, delta, block)
                forward_chunk(
                    exp2_of_negative, steps, rank, projected, x_chunk, delta, A[k], D[k], state, y_chunk, block
                )
            target = output[direction_part, image]
            scatter_pixels(steps, pixels, y_chunk, first_block, last_block, target, k > k_first)


@kernel
def backward_unit(
    unit,
    direction_parts,
    block_parts,
    height,
    width,
    codes,
    x,
    projections,
    weight,
    bias,
    A,
    D,
    saved,
    dy,
    dx,
    dprojections,
    dweight,
    dbias,
    dA,
    dD,
    pixels,
    projected,
    raw,
    delta,
    x_chunk,
    dy_chunk,
    dx_chunk,
    ddelta,
    adjoint,
    sums,
    inputs,
    history,
    decays,
    through_input,
    through_decay,
    sources=SOURCES,
):
    """Every gradient of one unit; arguments as in `forward_unit`, and

    dy: (B, L, D).  dx: (S, B, L, D).  dprojections: (Q, B, L, K, P).  dweight, dbias, dA, dD: as the parameters, with
    a leading B.
    """
    chunk, rank, states = projected.shape[0], weight.shape[2], A.shape[2]
    image, direction_part, k_first, k_last, block_part, first_block, last_block = locate_unit(
        unit, direction_parts, block_parts, codes.shape[0], A.shape[1]
    )
    length = height * width
    last_chunk = (length - 1) // chunk
    for k in range(k_first, k_last):
        for block in range(first_block, last_block):
            store(dbias, (image, k, block), broadcast(0.0))
            store(dD, (image, k, block), broadcast(0.0))
            for r in range(rank):
                store(dweight, (image, k, block, r), broadcast(0.0))
            for n in range(states):
                store(dA, (image, k, block, n), broadcast(0.0))
                store(adjoint, (block, n), broadcast(0.0))
        for number in range(last_chunk, -1, -1):
            first = number * chunk
            steps = min(chunk, length - first)
            find_pixels(codes[k], first, steps, height, width, pixels)
            gather_pixels(steps, pixels, x[image], first_block, last_block, x_chunk)
            gather_pixels(steps, pixels, dy[image], first_block, last_block, dy_chunk)
            gather_projections(steps, pixels, projections[image, :, k], projected)
            clear(steps, sums)
            for block in range(first_block, last_block):
                compute_delta(steps, rank, projected, weight[k], bias[k], raw, delta, block)
                backward_chunk(
                    exp2_of_negative,
                    steps,
                    rank,
                    projected,
                    x_chunk,
                    delta,
                    A[k],
                    D[k],
                    saved[image, k, number],
                    dy_chunk,
                    adjoint,
                    dx_chunk,
                    ddelta,
                    dA[image, k],
                    dD[image, k],
                    sums,
                    inputs,
                    history,
                    decays,
                    through_input,
                    through_decay,
                    block,
                )
                backpropagate_delta(
                    steps, rank, projected, weight[k], raw, ddelta, dweight[image, k], dbias[image, k], sums, block
                )
            sum_lanes(steps, sums, projected)
            scatter_projections(steps, pixels, projected, dprojections[block_part, image, :, k])
            scatter_pixels(steps, pixels, dx_chunk, first_block, last_block, dx[direction_part, image], k > k_first)
