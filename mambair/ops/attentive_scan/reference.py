"""attentive_scan in plain PyTorch: the definition that the other backends are tested against.

Shapes: B batch, L places, D inner channels, R rank of delta, N states, T tokens.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mambair.ops.attentive_scan.operands import Operands
from mambair.ops.backends import compute_dtype, without_autocast
from mambair.ops.selective_scan.reference import selective_scan_reference


def unavailable_reason(device: torch.device) -> None:
    """None: the reference runs everywhere."""


def token_order(tokens: Tensor) -> Tensor:
    """(B, L): the numbers of the places sorted by token; places of one token stay in their order."""
    if torch.compiler.is_exporting():  # ONNX sorts by an operator that is not stable: no two places may be equal
        length = tokens.shape[1]
        tokens = tokens.long() * length + torch.arange(length, device=tokens.device)
        return tokens.sort(dim=1).indices
    return tokens.sort(dim=1, stable=True).indices


def attentive_scan_reference(operands: Operands, scan: Callable[..., Any] = selective_scan_reference) -> Tensor:
    """See `attentive_scan`. Autograd differentiates it, keeping every state.

    `scan` takes the positional arguments of `selective_scan` up to `return_last_state`.
    """
    x, tokens, policy, *parameters = operands
    dtype = compute_dtype(x.dtype)
    prompts, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds = (
        parameter.to(dtype) for parameter in parameters
    )
    rank, states = dt_projs_weight.shape[2], A_logs.shape[1]
    order = token_order(tokens)
    row = torch.arange(x.shape[0], device=x.device)[:, None]
    sequence = x.to(dtype)[row, order]  # (B, L, D)
    with without_autocast(x.device.type):
        dt, B, C = (sequence @ x_proj_weight[0].t()).split((rank, states, states), dim=2)
        C = C + prompts[tokens]
        if policy is not None:
            soft = policy.to(dtype)
            C = C + (soft - soft.detach()) @ prompts.detach()  # zero, but for its gradient
        y = scan(
            sequence.transpose(1, 2),
            (dt @ dt_projs_weight[0].t()).transpose(1, 2),
            -torch.exp(A_logs),
            B.transpose(1, 2)[:, None],
            C.transpose(1, 2)[:, None],
            Ds,
            None,
            dt_projs_bias[0],
            True,
            False,
        )
    restored = torch.zeros_like(sequence).index_put((row, order), y.transpose(1, 2))
    return restored.to(x.dtype)
