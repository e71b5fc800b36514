"""What a backend of attentive_scan is given: one value in place of nine arguments.

Shapes: B batch, L places, D inner channels, R rank of delta, N states, T tokens.
"""

from typing import NamedTuple

from torch import Tensor


class Operands(NamedTuple):
    """The tensors of one call, checked; see `attentive_scan`."""

    x: Tensor
    """(B, L, D)"""
    tokens: Tensor
    """(B, L), whole numbers in [0, T)."""
    policy: Tensor | None
    """(B, L, T)"""
    prompts: Tensor
    """(T, N)"""
    x_proj_weight: Tensor
    """(1, R + 2N, D)"""
    dt_projs_weight: Tensor
    """(1, D, R)"""
    dt_projs_bias: Tensor
    """(1, D)"""
    A_logs: Tensor
    """(D, N)"""
    Ds: Tensor
    """(D,)"""
