"""attentive_scan: checks its arguments and hands them to a backend.

Shapes: B batch, L places, D inner channels, R rank of delta, N states, T tokens.
"""

import torch
from torch import Tensor

from mambair.errors import UserError
from mambair.ops.attentive_scan.operands import Operands
from mambair.ops.backends import FUNCTIONS, find_backend


def attentive_scan(
    x: Tensor,
    tokens: Tensor,
    policy: Tensor | None,
    prompts: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    backend: str = "auto",
) -> Tensor:
    """The attentive state-space equation of MambaIRv2: one selective scan over the places in the order of their tokens.

    Places are sorted by token, those of one token in their order in the image (a stable sort). For the i-th place in
    that order, (dt, B, C) = x_proj_weight[0] x, delta = softplus(dt_projs_weight[0] dt + dt_projs_bias[0]),
    A = -exp(A_logs), D = Ds, and C is increased by prompts[tokens[i]], the prompt of the i-th place *of the image*: so
    the published networks were trained. Then `selective_scan` runs, and the result goes back to the image's order.

    Arguments, real floating point but for tokens, and on one device:
        x: (B, L, D), any strides.  tokens: (B, L), whole numbers in [0, T).  prompts: (T, N).
        policy: (B, L, T) or None: the probabilities that the tokens were chosen with. Their values have no effect; the
        gradient of a place's prompt reaches them as if they, instead of the choice, had weighted the prompts
        (straight-through).
        x_proj_weight: (1, R + 2N, D), rows in the order dt, B, C.  dt_projs_weight: (1, D, R).
        dt_projs_bias: (1, D).  A_logs: (D, N).  Ds: (D,).
        backend: "auto", "reference", "portable", "numba", "triton" or "mamba_ssm"; "auto" obeys MAMBAIR_SCAN_BACKEND.

    Returns (B, L, D) in x's type. The scan computes in float32, or in float64 if x is float64, also under autocast.
    Gradients reach every tensor argument but tokens.

    Raises UserError for shapes that do not fit and for a named backend that cannot run.
    """
    operands = Operands(x, tokens, policy, prompts, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    _check(operands)
    found = find_backend("attentive_scan", backend, x.device.type, x.device.index, x.dtype)
    return FUNCTIONS[found](operands)


def _check(operands: Operands) -> None:
    x, tokens, _, prompts, _, dt_projs_weight, *_ = operands
    if x.dim() != 3 or 0 in x.shape:
        raise UserError(f"attentive_scan: x must be (B, L, D) and not empty, got {tuple(x.shape)}")
    if prompts.dim() != 2 or dt_projs_weight.dim() != 3:
        raise UserError(
            f"attentive_scan: prompts must be (T, N) and dt_projs_weight (1, D, R), "
            f"got {tuple(prompts.shape)} and {tuple(dt_projs_weight.shape)}"
        )
    batch, length, channels = x.shape
    (count, states), rank = prompts.shape, dt_projs_weight.shape[2]
    if min(count, states, rank) < 1:
        raise UserError(f"attentive_scan: tokens, states and rank must be at least 1, got {count}, {states}, {rank}")
    if tokens.dtype not in (torch.int32, torch.int64):
        raise UserError(f"attentive_scan: tokens must be 32-bit or 64-bit integers, got {tokens.dtype}")
    shapes = {
        "x": tuple(x.shape),
        "tokens": (batch, length),
        "policy": (batch, length, count),
        "prompts": (count, states),
        "x_proj_weight": (1, rank + 2 * states, channels),
        "dt_projs_weight": (1, channels, rank),
        "dt_projs_bias": (1, channels),
        "A_logs": (channels, states),
        "Ds": (channels,),
    }
    for (name, shape), tensor in zip(shapes.items(), operands, strict=True):
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise UserError(
                f"attentive_scan: {name} must be {shape} for {length} places, {channels} channels, {count} tokens, "
                f"{states} states and rank {rank}, got {tuple(tensor.shape)}"
            )
        if name != "tokens" and not tensor.is_floating_point():
            raise UserError(f"attentive_scan: {name} must be real floating point, got {tensor.dtype}")
        if tensor.device != x.device:
            raise UserError(f"attentive_scan: {name} is on {tensor.device} and x on {x.device}; move them together")
