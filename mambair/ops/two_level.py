"""The selective scan in PyTorch's standard operators, on two levels: few long steps where the definition has many.

A sequence of L positions is cut into M chunks of T. All chunks are scanned at once, each from an empty state: T steps.
What a chunk leaves to the next is its last state, and what lives on of the state it began with: M steps. What each
chunk lacked is then added: T steps. With M and T near the root of L that is three roots of L in place of L steps, and
the states of one step, (B, G, M, N, E), are all that is held of them: memory grows with L, not with L times N.

Every factor is exp(delta A) for one position or for the sum of delta over a chunk; nothing is divided, so no decay is
too strong. torch.export writes the steps as a loop (`scan`); in ONNX files the same is written in ONNX's own operators,
see `mambair.ops.symbolic`.

Shapes: B batch, G groups that share B and C, E channels of a group, N states, M chunks, T positions of a chunk.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

EXPORTED_STATES = 200_000
"""About how many numbers the states of one step have in exported files, whatever the image's size: that many stay in
a processor's cache, and suffice for two threads to share. In ONNX Runtime on two threads a light network's scan took
14 ms with 64 chunks (184,320 numbers), 16 with 32 or 128; a classic network's 20 ms with 16, 24 with 32, 30 with 64."""

EXPORTED_CHUNKS = (16, 64)
"""The fewest and the most chunks in exported files. On a GPU every step costs a start of kernels, and there are L / M
steps; but a sequence is filled up to M times UNROLLED positions."""

UNROLLED = 4
"""Positions that a step of an ONNX loop takes. The operators that make delta, B and C run once for all of them: in ONNX
Runtime on two threads a light network's scan took 14.5 ms with four and 15.4 with one; 24 and 30 ms in hours when data
passed more slowly between the machine's two cores."""

FORGOTTEN = -60.0
"""The exponent below which nothing more is forgotten of the state that a chunk began with, of which then 1e-26 lives
on. Smaller parts would be numbers below 1e-38, with which processors compute many times slower: a scan of 128 x 128
pixels took twice as long."""

Tensors = tuple[Tensor, ...]
Step = Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]
"""(state, one position's inputs) -> (next state, outputs)."""
Prepare = Callable[[Tensors], Tensors]
"""What becomes of inputs (..., M, X) before the scan: a function of each position alone."""


def cut(length: int, states: int) -> tuple[int, int]:
    """(M, T) for `length` positions whose state has `states` numbers, M T >= length."""
    if not torch.compiler.is_exporting():
        chunks = math.isqrt(length)
        return chunks, (length + chunks - 1) // chunks
    fewest, most = EXPORTED_CHUNKS
    fitting = min(max(EXPORTED_STATES // states, fewest), most)
    chunks = 1 << fitting.bit_length() - 1  # a power of two
    return chunks, (length + chunks * UNROLLED - 1) // (chunks * UNROLLED) * UNROLLED


def two_level_scan(prepare: Prepare, inputs: Tensors, A: Tensor) -> tuple[Tensor, Tensor]:
    """h = exp(delta A) h + input B and y = C h along chunks that follow one another.

    `prepare` makes (delta, input, B, C) of `inputs`, each (T, B, G, M, X): delta and input (delta times u) are
    (..., M, E), B and C (..., M, N). It is called for a few positions at a time, so that what it makes is never whole.
    A: (G, N, E). Returns y (T, B, G, M, E) and the last state (B, G, N, E).
    """
    A = A[:, None].contiguous()  # (G, 1, N, E)

    def prepared(position: Tensors) -> Tensors:
        delta, input, B, C = prepare(position)
        return delta[..., None, :], input[..., None, :], B[..., None], C[..., None, :]

    def advance(carried: Tensors, position: Tensors) -> tuple[Tensors, Tensors]:
        (state, elapsed), (delta, input, B, C) = carried, position
        state = torch.exp(delta * A) * state + input * B  # (B, G, M, N, E)
        return (state, elapsed + delta), (C @ state, delta.clone(), C.clone())

    def chain(carried: Tensors, chunk: Tensors) -> tuple[Tensors, Tensors]:
        (state,), (kept, added) = carried, chunk  # (B, G, N, E)
        return (kept * state + added,), (state.clone(),)

    def lack(carried: Tensors, position: Tensors) -> tuple[Tensors, Tensors]:
        (elapsed,), (y, delta, C) = carried, position
        elapsed = elapsed + delta
        lives = torch.exp(torch.clamp(elapsed * A, min=FORGOTTEN)) * starts
        return (elapsed,), (y + C @ lives,)

    _, batch, groups, chunks, _ = inputs[0].shape
    empty = inputs[0].new_zeros(batch, groups, chunks, *A.shape[2:])
    beginning = empty[..., :1, :]  # (B, G, M, 1, E)
    (added, elapsed), outputs = run_steps(advance, (empty, beginning), inputs, prepared)
    kept = torch.exp(torch.clamp(elapsed * A, min=FORGOTTEN))
    (last,), (starts,) = run_steps(chain, (empty[:, :, 0],), (kept.movedim(2, 0), added.movedim(2, 0)))
    starts = starts.movedim(0, 2)
    _, (y,) = run_steps(lack, (beginning,), outputs)
    return y.squeeze(-2), last


def run_steps(step: Step, state: Tensors, inputs: Tensors, prepare: Prepare = tuple) -> tuple[Tensors, Tensors]:
    """(last state, outputs along a new first dimension) of `step` along the first dimension of all `inputs`.

    Where gradients are wanted, only the states of every few steps are kept, and those between computed once more.
    """
    if torch.compiler.is_exporting():
        from torch._higher_order_ops.scan import scan

        def laid_out(carried: Tensors, position: Tensors) -> tuple[Tensors, Tensors]:
            carried, outputs = step(carried, prepare(position))
            return _contiguous(carried), outputs

        return scan(laid_out, _contiguous(state), _contiguous(inputs))
    stretch = math.isqrt(inputs[0].shape[0])
    outputs = []
    for parts in zip(*(each.split(stretch) for each in inputs), strict=True):
        if torch.is_grad_enabled():
            state, part = checkpoint(_run_stretch, step, state, parts, prepare, use_reentrant=False)
        else:
            state, part = _run_stretch(step, state, parts, prepare)
        outputs.append(part)
    return state, tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))


def _contiguous(tensors: Tensors) -> Tensors:
    """Copies with the usual strides, also of dimensions of size 1: `scan` compares them before and after a step."""
    return tuple(each.clone(memory_format=torch.contiguous_format) for each in tensors)


def _run_stretch(step: Step, state: Tensors, inputs: Tensors, prepare: Prepare) -> tuple[Tensors, Tensors]:
    outputs = []
    for position in zip(*(each.unbind() for each in prepare(inputs)), strict=True):
        state, output = step(state, position)
        outputs.append(output)
    return state, tuple(torch.stack(parts) for parts in zip(*outputs, strict=True))


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), exact where exp(x) is small.

    Exported as elementary functions: ONNX Runtime takes as long for its Softplus of delta as for a third of the scan.
    """
    if not torch.compiler.is_exporting():
        return torch.nn.functional.softplus(x)
    small = torch.exp(-x.abs())
    rounded = 1 + small
    # What rounding took from 1 + small, added to first order.
    return torch.relu(x) + torch.log(rounded) + (small - (rounded - 1)) / rounded
