"""selective_scan on CUDA GPUs: the kernels of ss2d on a sequence, as a PyTorch operator with gradients.

Shapes: B batch, D channels, L length, G groups of D / G channels, N states. Inside, channels come last: the kernels
read them side by side.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair.ops.flops import BACKWARD_FACTOR, counts_flops, selective_scan_flops
from mambair.ops.ss2d.triton_launch import LOG2_E, ScanInputs, launch_refusal, scan_forward
from mambair.ops.ss2d.triton_launch_backward import scan_backward
from mambair.ops.ss2d.triton_plan import WARP, ScanShape, kept_bytes


def unavailable_reason(device: torch.device) -> str | None:
    """Why this backend cannot run on `device`, or None."""
    return launch_refusal(device)


def selective_scan_triton(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    return_last_state: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    """See `selective_scan`; B and C are (B, G, N, L). Computes in float32, deterministically."""
    tensors = (u, delta, A, B, C, D, delta_bias)
    keep_states = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    projected = torch.cat((B, C), dim=2).permute(0, 3, 1, 2).flatten(2)  # (B, L, 2 G N)
    D, delta_bias = (A.new_zeros(A.shape[0]) if tensor is None else tensor for tensor in (D, delta_bias))
    y, last_state, _ = _scan(
        u.transpose(1, 2), delta.transpose(1, 2), A, projected, D, delta_bias, B.shape[1], delta_softplus, keep_states
    )
    y = y.transpose(1, 2)
    if z is not None:
        y = (y.float() * F.silu(z.float())).to(u.dtype)
    return (y, last_state) if return_last_state else y


def _shape(u: Tensor, A: Tensor, groups: int, softplus: bool) -> ScanShape:
    batch, length, channels = u.shape
    return ScanShape(
        batch=batch,
        height=1,
        width=length,
        channels=channels // groups,
        groups=groups,
        senses=1,
        states=A.shape[1],
        rank=0,
        image=False,
        delta_given=True,
        softplus=softplus,
    )


def _pack(A: Tensor, groups: int) -> Tensor:
    """A log2(e) (G, EB, N, lanes), fp32, zeros after the last channel, from A (D, N)."""
    A2 = (A.float() * LOG2_E).view(groups, -1, A.shape[1])
    A2 = F.pad(A2, (0, 0, 0, -A2.shape[1] % WARP))
    return A2.unflatten(1, (-1, WARP)).transpose(2, 3).contiguous()


def _inputs(
    u: Tensor, delta: Tensor, A: Tensor, projected: Tensor, D: Tensor, delta_bias: Tensor, groups: int
) -> ScanInputs:
    u, delta, projected = u.contiguous(), delta.contiguous(), projected.contiguous()
    return ScanInputs(u, delta, projected, _pack(A, groups), None, delta_bias.contiguous(), D.contiguous())


@torch.library.custom_op("mambair::selective_scan_triton", mutates_args=())
def _scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    projected: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    groups: int,
    softplus: bool,
    keep_states: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, last state (B, D, N), what the backward pass needs besides, as bytes); u, delta, y: (B, L, D).

    projected: (B, L, G 2N), B before C in every group. The last output is empty unless `keep_states`.
    """
    shape = _shape(u, A, groups, softplus)
    y, kept, last = scan_forward(shape, _inputs(u, delta, A, projected, D, delta_bias, groups))
    last_state = last.transpose(2, 3).flatten(1, 2).contiguous()  # (B, D, N)
    return y, last_state, kept if keep_states else kept.new_empty(0)


@_scan.register_fake
def _(
    u: Any, delta: Any, A: Any, projected: Any, D: Any, delta_bias: Any, groups: Any, softplus: Any, keep_states: Any
) -> Any:
    kept = kept_bytes(_shape(u, A, groups, softplus), u.device) if keep_states else 0
    last_state = u.new_empty((u.shape[0], *A.shape), dtype=torch.float32)
    return u.new_empty(u.shape), last_state, u.new_empty(kept, dtype=torch.uint8)


@torch.library.custom_op("mambair::selective_scan_triton_backward", mutates_args=())
def _scan_backward(
    dy: Tensor,
    d_last_state: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    projected: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    kept: Tensor,
    groups: int,
    softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, delta, A, projected, D and delta_bias, each in its tensor's type and shape."""
    shape = _shape(u, A, groups, softplus)
    batch, channels = u.shape[0], u.shape[2] // groups
    leaving = d_last_state.float().view(batch, groups, channels, -1).transpose(2, 3).contiguous()  # (B, G, N, E)
    inputs = _inputs(u, delta, A, projected, D, delta_bias, groups)
    dy = dy.to(u.dtype).contiguous()
    found = scan_backward(shape, dy, inputs, kept, leaving, A_is_log=False)
    assert found.delta is not None
    d_D, d_bias = found.D.flatten().to(D.dtype), found.bias.flatten().to(delta_bias.dtype)
    return found.x, found.delta, found.A.to(A.dtype), found.projected, d_D, d_bias


@_scan_backward.register_fake
def _(
    dy: Any,
    d_last_state: Any,
    u: Any,
    delta: Any,
    A: Any,
    projected: Any,
    D: Any,
    delta_bias: Any,
    kept: Any,
    groups: Any,
    softplus: Any,
) -> Any:
    return tuple(tensor.new_empty(tensor.shape) for tensor in (u, delta, A, projected, D, delta_bias))


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, groups, softplus, _ = inputs
    kept = output[2]
    ctx.save_for_backward(*tensors, kept)
    ctx.options = groups, softplus
    ctx.mark_non_differentiable(kept)
    # Otherwise zeros as large as what is kept are made for its gradient.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Any, d_last_state: Any, *_: Any) -> Any:
    u, _, A, *_ = ctx.saved_tensors
    dy = torch.zeros_like(u) if dy is None else dy
    d_last_state = A.new_zeros(u.shape[0], *A.shape) if d_last_state is None else d_last_state
    gradients = _scan_backward(dy, d_last_state, *ctx.saved_tensors, *ctx.options)
    needed = (gradient if need else None for gradient, need in zip(gradients, ctx.needs_input_grad, strict=False))
    return (*needed, None, None, None)


_scan.register_autograd(_backward, setup_context=_setup_context)


@counts_flops(torch.ops.mambair.selective_scan_triton)
def _forward_flops(u: Any, delta: Any, A: Any, *_: Any, **__: Any) -> int:
    batch, length, channels = u
    return selective_scan_flops(batch, length, channels, A[1])


@counts_flops(torch.ops.mambair.selective_scan_triton_backward)
def _backward_flops(dy: Any, d_last_state: Any, *shapes: Any, **_: Any) -> int:
    return BACKWARD_FACTOR * _forward_flops(*shapes)
