"""Compiled kernels of selective_scan for the CPU.

A kernel call does one unit of work: one sequence of the batch, one group, one part of the group's channel blocks (of
16). Sequences are contiguous in memory and lanes are channels, so chunks are transposed on their way in and out.

Shapes: B batch, D channels, E = D / G channels per group in M = ceil(E / 16) blocks, L length, N states, P = 2N,
T = CHUNK steps, G groups, Q parts of the blocks.
"""

from numba import njit

from mambair.ops.cpu.compilation import SOURCES, kernel
from mambair.ops.cpu.recurrence import backward_chunk, clear, forward_chunk, sum_lanes
from mambair.ops.cpu.simd import LANES, broadcast, exp2, load, sigmoid, softplus, store, transpose


@njit(error_model="numpy")
def gather_steps(first, steps, rows, first_channel, channels, first_block, last_block, target):
    """target (M, T, 16) = columns [first, first + steps) of rows (D, L), with zeros where the group has no channel.

    The group's channels are rows [first_channel, first_channel + channels).
    """
    whole = steps // LANES * LANES
    for block in range(first_block, last_block):
        channel = first_channel + block * LANES
        present = min(LANES, channels - block * LANES)
        scalar_from = whole if present == LANES else 0
        for t in range(0, scalar_from, LANES):
            transpose(rows, channel, first + t, target[block], t, 0)
        for t in range(scalar_from, steps):
            store(target, (block, t), broadcast(0.0))
        for lane in range(present):
            for t in range(scalar_from, steps):
                target[block, t, lane] = rows[channel + lane, first + t]


@njit(error_model="numpy")
def scatter_steps(first, steps, source, first_channel, channels, first_block, last_block, rows):
    """The inverse of `gather_steps`: columns of rows (D, L) = source (M, T, 16)."""
    whole = steps // LANES * LANES
    for block in range(first_block, last_block):
        channel = first_channel + block * LANES
        present = min(LANES, channels - block * LANES)
        scalar_from = whole if present == LANES else 0
        for t in range(0, scalar_from, LANES):
            transpose(source[block], t, 0, rows, channel, first + t)
        for lane in range(present):
            for t in range(scalar_from, steps):
                rows[channel + lane, first + t] = source[block, t, lane]


@njit(error_model="numpy")
def gather_projections(first, steps, B, C, target):
    """target (T, 2N) = columns [first, first + steps) of B and C, (N, L) each, side by side."""
    states = B.shape[0]
    for n in range(states):
        for t in range(steps):
            target[t, n] = B[n, first + t]
            target[t, states + n] = C[n, first + t]


@njit(error_model="numpy")
def compute_delta(steps, bias, apply_softplus, raw, delta, block):
    """raw (M, T, 16) += bias (M, 16), and delta = softplus(raw) or raw."""
    bias_block = load(bias, (block,))
    for t in range(steps):
        value = load(raw, (block, t)) + bias_block
        store(raw, (block, t), value)
        if apply_softplus:
            value = softplus(value)
        store(delta, (block, t), value)


@njit(error_model="numpy")
def backpropagate_delta(steps, apply_softplus, raw, ddelta, dbias, block):
    """ddelta (M, T, 16) becomes the gradient of raw; its sum is added to dbias (M, 16)."""
    dbias_block = broadcast(0.0)
    for t in range(steps):
        draw = load(ddelta, (block, t))
        if apply_softplus:
            draw = draw * sigmoid(load(raw, (block, t)))
            store(ddelta, (block, t), draw)
        dbias_block = dbias_block + draw
    store(dbias, (block,), load(dbias, (block,)) + dbias_block)


@njit(error_model="numpy")
def locate_unit(unit, block_parts, groups, blocks):
    """(sequence, group, part of the blocks, its first and last block)."""
    part = unit % block_parts
    group = unit // block_parts % groups
    return (
        unit // (block_parts * groups),
        group,
        part,
        part * blocks // block_parts,
        (part + 1) * blocks // block_parts,
    )


@kernel
def forward_unit(
    unit,
    block_parts,
    apply_softplus,
    u,
    delta,
    B,
    C,
    A,
    D,
    bias,
    y,
    last_state,
    saved,
    projected,
    raw_chunk,
    delta_chunk,
    u_chunk,
    y_chunk,
    state,
    sources=SOURCES,
):
    """Output, last state and, if `saved` is not empty, the states at the start of each chunk.

    u, delta, y: (B, D, L).  B, C: (B, G, N, L).  A, in units of log2(e): (G, M, N, 16).  D, bias: (G, M, 16).
    last_state: (B, G, M, N, 16).  saved: (B, G, chunks, M, N, 16).  The rest are one worker's buffers.
    """
    chunk, states, length = projected.shape[0], A.shape[2], u.shape[2]
    channels = u.shape[1] // A.shape[0]
    sequence, group, _, first_block, last_block = locate_unit(unit, block_parts, A.shape[0], A.shape[1])
    channel = group * channels
    for block in range(first_block, last_block):
        for n in range(states):
            store(state, (block, n), broadcast(0.0))
    for first in range(0, length, chunk):
        steps = min(chunk, length - first)
        gather_steps(first, steps, u[sequence], channel, channels, first_block, last_block, u_chunk)
        gather_steps(first, steps, delta[sequence], channel, channels, first_block, last_block, raw_chunk)
        gather_projections(first, steps, B[sequence, group], C[sequence, group], projected)
        for block in range(first_block, last_block):
            if saved.shape[0] > 0:
                for n in range(states):
                    store(saved, (sequence, group, first // chunk, block, n), load(state, (block, n)))
            compute_delta(steps, bias[group], apply_softplus, raw_chunk, delta_chunk, block)
            forward_chunk(exp2, steps, 0, projected, u_chunk, delta_chunk, A[group], D[group], state, y_chunk, block)
        scatter_steps(first, steps, y_chunk, channel, channels, first_block, last_block, y[sequence])
    for block in range(first_block, last_block):
        for n in range(states):
            store(last_state, (sequence, group, block, n), load(state, (block, n)))


@kernel
def backward_unit(
    unit,
    block_parts,
    apply_softplus,
    u,
    delta,
    B,
    C,
    A,
    D,
    bias,
    saved,
    dy,
    dlast_state,
    du,
    ddelta,
    dprojections,
    dA,
    dD,
    dbias,
    projected,
    raw_chunk,
    delta_chunk,
    u_chunk,
    dy_chunk,
    du_chunk,
    ddelta_chunk,
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

    dy, du, ddelta: (B, D, L).  dlast_state: (B, G, M, N, 16).  dprojections: (Q, B, G, 2N, L), of B and then C.
    dA, dD, dbias: as the parameters, with a leading B.
    """
    chunk, states, length = projected.shape[0], A.shape[2], u.shape[2]
    channels = u.shape[1] // A.shape[0]
    sequence, group, part, first_block, last_block = locate_unit(unit, block_parts, A.shape[0], A.shape[1])
    channel = group * channels
    for block in range(first_block, last_block):
        store(dD, (sequence, group, block), broadcast(0.0))
        store(dbias, (sequence, group, block), broadcast(0.0))
        for n in range(states):
            store(dA, (sequence, group, block, n), broadcast(0.0))
            store(adjoint, (block, n), load(dlast_state, (sequence, group, block, n)))
    for number in range((length - 1) // chunk, -1, -1):
        first = number * chunk
        steps = min(chunk, length - first)
        gather_steps(first, steps, u[sequence], channel, channels, first_block, last_block, u_chunk)
        gather_steps(first, steps, delta[sequence], channel, channels, first_block, last_block, raw_chunk)
        gather_steps(first, steps, dy[sequence], channel, channels, first_block, last_block, dy_chunk)
        gather_projections(first, steps, B[sequence, group], C[sequence, group], projected)
        clear(steps, sums)
        for block in range(first_block, last_block):
            compute_delta(steps, bias[group], apply_softplus, raw_chunk, delta_chunk, block)
            backward_chunk(
                exp2,
                steps,
                0,
                projected,
                u_chunk,
                delta_chunk,
                A[group],
                D[group],
                saved[sequence, group, number],
                dy_chunk,
                adjoint,
                du_chunk,
                ddelta_chunk,
                dA[sequence, group],
                dD[sequence, group],
                sums,
                inputs,
                history,
                decays,
                through_input,
                through_decay,
                block,
            )
            backpropagate_delta(steps, apply_softplus, raw_chunk, ddelta_chunk, dbias[sequence, group], block)
        sum_lanes(steps, sums, projected)
        for row in range(2 * states):
            for t in range(steps):
                dprojections[part, sequence, group, row, first + t] = projected[t, row]
        scatter_steps(first, steps, du_chunk, channel, channels, first_block, last_block, du[sequence])
        scatter_steps(first, steps, ddelta_chunk, channel, channels, first_block, last_block, ddelta[sequence])
