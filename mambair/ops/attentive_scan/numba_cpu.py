"""attentive_scan on the CPU: the compiled kernels of ss2d on the sorted places, as one line of an image.

Shapes: B batch, L places, D inner channels, R rank of delta, N states, T tokens, P = R + 2N.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair.ops.attentive_scan.operands import Operands
from mambair.ops.attentive_scan.reference import token_order
from mambair.ops.ss2d.numba_cpu import scan_projected, unavailable_reason

__all__ = ["attentive_scan_numba", "unavailable_reason"]


def attentive_scan_numba(operands: Operands) -> Tensor:
    """See `attentive_scan`; computes in float32."""
    x, tokens, policy, prompts, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds = operands
    states = A_logs.shape[1]
    order = token_order(tokens)
    with torch.autocast("cpu", enabled=False):
        sequence = _Reordered.apply(x.float(), order, False)
        projections = F.linear(sequence, x_proj_weight[0].float())  # (B, L, P)
        projections = _Prompted.apply(projections, tokens, policy, prompts.float())
        y = scan_projected(
            sequence[:, None],
            projections[:, None],
            dt_projs_weight.float(),
            dt_projs_bias.float(),
            -torch.exp(A_logs.float()).view(1, -1, states),
            Ds.float()[None],
        )
        y = _Reordered.apply(y[:, 0], order, True)
    return y.to(x.dtype)


class _Reordered(torch.autograd.Function):
    """Places (B, L, D) in the order `order` (B, L), or back from it: each way's gradient is the other way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, back: bool) -> Tensor:
        ctx.save_for_backward(order)
        ctx.back = back
        return _reorder(x, order, back)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        (order,) = ctx.saved_tensors
        return _reorder(dy, order, not ctx.back), None, None


def _reorder(x: Tensor, order: Tensor, back: bool) -> Tensor:
    """Whole rows are copied, by one number for each."""
    batch, length, channels = x.shape
    rows = (order + torch.arange(0, batch * length, length)[:, None]).view(-1)
    source = x.reshape(-1, channels)
    moved = torch.empty_like(source).index_copy_(0, rows, source) if back else source.index_select(0, rows)
    return moved.view(x.shape)


class _Prompted(torch.autograd.Function):
    """projections (B, L, P) with prompts[tokens] added to their last N columns; straight-through policy."""

    @staticmethod
    def forward(ctx: Any, projections: Tensor, tokens: Tensor, policy: Tensor | None, prompts: Tensor) -> Tensor:
        ctx.save_for_backward(tokens, prompts)
        ctx.policy_type = None if policy is None else policy.dtype
        prompted = projections.clone()
        prompted[..., -prompts.shape[1] :] += F.embedding(tokens, prompts)
        return prompted

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor | None, Tensor]:
        tokens, prompts = ctx.saved_tensors
        d_C = gradient[..., -prompts.shape[1] :]
        d_policy = (d_C @ prompts.t()).to(ctx.policy_type) if ctx.needs_input_grad[2] else None
        d_prompts = torch.zeros_like(prompts).index_add_(0, tokens.reshape(-1), d_C.reshape(-1, prompts.shape[1]))
        return gradient, None, d_policy, d_prompts
