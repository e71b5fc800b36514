"""Scans as one node each of a traced graph, for files whose format has a scan of its own: `mambair export` to ONNX.

What the nodes mean, in ONNX's operators, is in `mambair.commands.export.scans`.

Shapes: B batch, K groups or directions, M chunks, T positions of a chunk, E channels of a group, N states, R rank.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from mambair.ops.two_level import UNROLLED

DOMAIN = "mambair"
SS2D = "Ss2dScan"
SELECTIVE = {True: "SelectiveScanSoftplus", False: "SelectiveScan"}
"""By whether delta goes through softplus."""

_wanted: ContextVar[bool] = ContextVar("symbolic_scans", default=False)


@contextmanager
def symbolic_scans() -> Iterator[None]:
    """Inside, scans that are traced for export become nodes. Needs torch.onnx.ops, which PyTorch has since 2.8."""
    token = _wanted.set(True)
    try:
        yield
    finally:
        _wanted.reset(token)


def scans_are_symbolic() -> bool:
    """Whether a scan is to be a node."""
    return _wanted.get()


def ss2d_node(
    pixels: Tensor, visited: Tensor, weights: Tensor, dt_weights: Tensor, bias: Tensor, A: Tensor, states: int
) -> Tensor:
    """The two-level scan along rows `visited` (T, B, K, M) of pixels (B L, E) -> y (T, B, K, M, E).

    weights: (K, E, R + 2N), dt_weights: (K, R, E), bias: (K, 1, E), A: (K, N, E).
    """
    visited = _by_steps(visited)
    inputs = (visited, pixels, weights, dt_weights, bias, A[:, None])
    shapes = ((*visited.shape, A.shape[2]), (*visited.shape[2:4], *A.shape[1:]))
    return _node(SS2D, inputs, shapes, pixels.dtype, parts=[dt_weights.shape[1], states, states])[0].flatten(0, 1)


def selective_node(
    sequences: tuple[Tensor, ...], bias: Tensor | None, A: Tensor, softplus: bool
) -> tuple[Tensor, Tensor]:
    """The two-level scan of `sequences` -> y (T, B, K, M, E), last state (B, K, N, E).

    sequences: u and delta (T, B, K, M, E), B and C (T, B, K, M, N). bias: (K, 1, E), A: (K, N, E).
    """
    bias = A.new_zeros(()) if bias is None else bias
    sequences = tuple(_by_steps(each) for each in sequences)
    u = sequences[0]
    shapes = (tuple(u.shape), (*u.shape[2:4], *A.shape[1:]))
    y, last = _node(SELECTIVE[softplus], (*sequences, bias, A[:, None]), shapes, u.dtype)
    return y.flatten(0, 1), last


def _by_steps(sequence: Tensor) -> Tensor:
    """(T, ...) -> (steps, UNROLLED, ...)."""
    return sequence.unflatten(0, (-1, UNROLLED))


def _node(
    name: str, inputs: tuple[Tensor, ...], shapes: tuple[tuple, ...], dtype: torch.dtype, **attributes: Sequence[int]
) -> Sequence[Tensor]:
    import torch.onnx.ops  # takes half a second

    dtypes = [dtype] * len(shapes)
    return torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::{name}", inputs, dict(attributes), dtypes=dtypes, shapes=shapes, version=1
    )
