"""The selective recurrence of 16 channels over one chunk of the sequence, forward and backward.

Both operators cut a sequence into chunks of CHUNK steps and gather each chunk into small contiguous buffers, so that
these functions need not know in which order an operator walks its pixels. Channels lie in blocks of 16, the lanes of a
vector. The forward pass keeps the state at each chunk's start; the backward pass walks the chunks from the last to the
first and recomputes the states of one chunk at a time.

Shapes: T steps of this chunk (at most CHUNK), G blocks of channels, N states, P = R + 2N columns of the projections
(dt, B, C; R = 0 where the operator is given delta itself).
"""

from numba import njit

from mambair.ops.cpu.simd import LN_2, add_folded, broadcast, broadcast_at, fma, load, store

# 64 steps keep the saved states at a quarter of the input for 16 states per channel, and what the backward pass holds
# of a chunk in the second-level cache; 32 and 16 steps were not faster.
CHUNK = 64


@njit(error_model="numpy")
def forward_chunk(exp2, steps, rank, projected, x, delta, A, D, state, y, block):
    """y and the state after `steps` steps, for the 16 channels of `block`.

    exp2: `simd.exp2`, or where delta A is never positive the faster `simd.exp2_of_negative`.
    projected: (T, P).  x, delta, y: (G, T, 16).  A, in units of log2(e): (G, N, 16).  D: (G, 16).
    state: (G, N, 16), read and replaced.
    """
    states = A.shape[1]
    for t in range(steps):
        delta_t, x_t = load(delta, (block, t)), load(x, (block, t))
        input_t = delta_t * x_t
        y_t = load(D, (block,)) * x_t
        for n in range(states):
            decay = exp2(delta_t * load(A, (block, n)))
            h = fma(decay, load(state, (block, n)), input_t * broadcast_at(projected, (t, rank + n)))
            store(state, (block, n), h)
            y_t = fma(h, broadcast_at(projected, (t, rank + states + n)), y_t)
        store(y, (block, t), y_t)


@njit(error_model="numpy")
def backward_chunk(
    exp2,
    steps,
    rank,
    projected,
    x,
    delta,
    A,
    D,
    start,
    dy,
    adjoint,
    dx,
    ddelta,
    dA,
    dD,
    sums,
    inputs,
    history,
    decays,
    through_input,
    through_decay,
    block,
):
    """Gradients of one chunk from that of its outputs, dy, for the 16 channels of `block`; exp2 as in `forward_chunk`.

    start (G, N, 16): state before the chunk.  adjoint (G, N, 16): gradient of the state after this chunk on entry, of
    the state before it on return.  dx, ddelta (G, T, 16): written.  dA (G, N, 16) and dD (G, 16): added to.
    sums (P, T, 4): the gradients of B and C are added to its rows, sums over lanes that are folded to four.
    The buffers after it, (T, 16), or (2, T, 16) for history (states before each step) and decays, hold two states of
    each channel at a time, because the loop over the states is outside: so they stay in the first-level cache.
    """
    states = A.shape[1]
    # Sums over the steps begin anew in each chunk: sums of sums lose less to rounding over a long sequence.
    dD_block = broadcast(0.0)
    for t in range(steps):
        x_t = load(x, (block, t))
        store(inputs, (t,), load(delta, (block, t)) * x_t)
        store(through_input, (t,), broadcast(0.0))
        store(through_decay, (t,), broadcast(0.0))
        dD_block = fma(load(dy, (block, t)), x_t, dD_block)
    store(dD, (block,), load(dD, (block,)) + dD_block)

    # Two states at a time share what is loaded for a step, and hide each other's latency. The last one of an odd number
    # has itself as a silent twin: its state and gradient stay zero, so nothing comes of it.
    for n in range(0, states, 2):
        twin = min(n + 1, states - 1)
        silence = broadcast(projected.dtype.type(twin - n))
        A_n, A_twin = load(A, (block, n)), load(A, (block, twin))
        h, h_twin = load(start, (block, n)), load(start, (block, twin)) * silence
        for t in range(steps):
            delta_t, input_t = load(delta, (block, t)), load(inputs, (t,))
            decay, decay_twin = exp2(delta_t * A_n), exp2(delta_t * A_twin)
            store(history, (0, t), h)
            store(history, (1, t), h_twin)
            store(decays, (0, t), decay)
            store(decays, (1, t), decay_twin)
            h = fma(decay, h, input_t * broadcast_at(projected, (t, rank + n)))
            h_twin = fma(decay_twin, h_twin, input_t * broadcast_at(projected, (t, rank + twin)) * silence)

        row_C, row_C_twin = rank + states + n, rank + states + twin
        gradient, gradient_twin = load(adjoint, (block, n)), load(adjoint, (block, twin)) * silence
        dA_n, dA_twin = broadcast(0.0), broadcast(0.0)
        for t in range(steps - 1, -1, -1):
            dy_t, input_t, delta_t = load(dy, (block, t)), load(inputs, (t,)), load(delta, (block, t))
            B_t, B_twin = broadcast_at(projected, (t, rank + n)), broadcast_at(projected, (t, rank + twin))
            gradient = fma(dy_t, broadcast_at(projected, (t, row_C)), gradient)
            gradient_twin = fma(dy_t, broadcast_at(projected, (t, row_C_twin)) * silence, gradient_twin)
            add_folded(sums, (row_C, t), dy_t * h)
            add_folded(sums, (row_C_twin, t), dy_t * h_twin)
            add_folded(sums, (rank + n, t), gradient * input_t)
            add_folded(sums, (rank + twin, t), gradient_twin * input_t)
            to_input = fma(gradient, B_t, load(through_input, (t,)))
            store(through_input, (t,), fma(gradient_twin, B_twin, to_input))
            gradient = gradient * load(decays, (0, t))
            gradient_twin = gradient_twin * load(decays, (1, t))
            h, h_twin = load(history, (0, t)), load(history, (1, t))
            exponent, exponent_twin = gradient * h, gradient_twin * h_twin
            to_decay = fma(exponent, A_n, load(through_decay, (t,)))
            store(through_decay, (t,), fma(exponent_twin, A_twin, to_decay))
            dA_n = fma(exponent, delta_t, dA_n)
            dA_twin = fma(exponent_twin, delta_t, dA_twin)
        store(adjoint, (block, twin), gradient_twin)
        store(adjoint, (block, n), gradient)
        store(dA, (block, twin), load(dA, (block, twin)) + dA_twin)
        store(dA, (block, n), load(dA, (block, n)) + dA_n)

    D_block = load(D, (block,))
    for t in range(steps):
        to_input = load(through_input, (t,))
        store(dx, (block, t), fma(load(delta, (block, t)), to_input, load(dy, (block, t)) * D_block))
        # A is in units of log2(e) here, the gradient of the exponent in natural ones.
        to_decay = load(through_decay, (t,)) * broadcast(LN_2)
        store(ddelta, (block, t), fma(load(x, (block, t)), to_input, to_decay))


@njit(error_model="numpy")
def sum_lanes(steps, sums, target):
    """target[t, p] = sum over the lanes of sums[p, t] (P, T, 4); target: (T, P)."""
    for column in range(sums.shape[0]):
        for t in range(steps):
            first, second = sums[column, t, 0] + sums[column, t, 1], sums[column, t, 2] + sums[column, t, 3]
            target[t, column] = first + second


@njit(error_model="numpy")
def clear(steps, buffer):
    """Set the first `steps` columns of buffer (P, T, 4) to zero."""
    for row in range(buffer.shape[0]):
        for t in range(steps):
            for lane in range(buffer.shape[2]):
                buffer[row, t, lane] = 0.0
