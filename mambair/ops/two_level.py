"""The selective scan in PyTorch's standard operators, on two levels: few long steps where the definition has many.

A sequence of L positions is cut into M chunks of T. All chunks are scanned at once, each from an empty state: T steps.
What a chunk leaves to the next is its last state, and what lives on of the state it began with: M steps. What each
chunk lacked is then added: T steps. With M and T near the root of L that is three roots of L in place of L steps, and
the states of one step, (B, G, M, N, E), are all that is held of them.

Every factor is exp(delta A) for one position or for the sum of delta over a chunk; nothing is divided, so no decay is
too strong. torch.export writes the steps as a loop (`scan`), which ONNX has as an operator.

Shapes: B batch, G groups that share B and C, E channels of a group, N states, M chunks, T positions of a chunk.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

EXPORTED_CHUNKS = 16
"""M where the length is not known when the steps are written down: states of 16 chunks stay in a CPU's cache."""

Step = Callable[[Tensor, Sequence[Tensor]], tuple[Tensor, Tensor]]
"""(state, one position's inputs) -> (next state, output)."""


def chunk_count(length: int) -> int:
    """M, the number of chunks that a sequence of `length` positions is cut into."""
    return math.isqrt(length) if isinstance(length, int) else EXPORTED_CHUNKS


def two_level_scan(delta: Tensor, input: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """h = exp(delta A) h + input B and y = C h along chunks that follow one another.

    delta, input (delta times u): (T, B, G, M, E).  A: (G, N, E).  B, C: (T, B, G, M, N).
    Returns y (T, B, G, M, E) and the last state (B, G, N, E).
    """
    A = A[:, None].contiguous()  # (G, 1, N, E)

    def advance(state: Tensor, position: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        delta_t, input_t, B_t, C_t = position  # (B, G, M, E or N)
        decay = torch.exp(delta_t[..., None, :] * A)  # (B, G, M, N, E)
        state = decay * state + input_t[..., None, :] * B_t[..., None]
        return state, C_t[..., None, :] @ state

    def decay(state: Tensor, position: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        delta_t, C_t = position
        state = torch.exp(delta_t[..., None, :] * A) * state
        return state, C_t[..., None, :] @ state

    def chain(state: Tensor, chunk: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        kept, added = chunk  # (B, G, N, E)
        return kept * state + added, state.clone()

    _, batch, groups, chunks, channels = delta.shape
    empty = delta.new_zeros(batch, groups, chunks, A.shape[2], channels)
    added, y = run_steps(advance, empty, (delta, input, B, C))  # (B, G, M, N, E), (T, B, G, M, 1, E)
    kept = torch.exp(delta.sum(dim=0)[..., None, :] * A)
    last, starts = run_steps(chain, empty[:, :, 0], (kept.movedim(2, 0), added.movedim(2, 0)))
    _, lacked = run_steps(decay, starts.movedim(0, 2), (delta, C))
    return (y + lacked).squeeze(-2), last


def run_steps(step: Step, state: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(last state, outputs along a new first dimension) of `step` along the first dimension of all `inputs`.

    Where gradients are wanted, only the states of every few steps are kept, and those between computed once more.
    """
    if torch.compiler.is_exporting():
        from torch._higher_order_ops.scan import scan

        return scan(step, state.contiguous(), tuple(each.contiguous() for each in inputs))
    length = inputs[0].shape[0]
    stretch = math.isqrt(length)
    outputs = []
    for parts in zip(*(each.split(stretch) for each in inputs), strict=True):
        if torch.is_grad_enabled():
            state, part = checkpoint(_run_stretch, step, state, *parts, use_reentrant=False)
        else:
            state, part = _run_stretch(step, state, *parts)
        outputs.append(part)
    return state, torch.cat(outputs)


def _run_stretch(step: Step, state: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    outputs = []
    for position in zip(*(each.unbind() for each in inputs), strict=True):
        state, output = step(state, position)
        outputs.append(output)
    return state, torch.stack(outputs)


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
