"""ss2d_scan on CUDA GPUs: the Triton kernels as a PyTorch operator with gradients.

Shapes: B batch, H x W pixels, L = H W, E inner channels, K directions, R rank of delta, N states, P = R + 2N.
"""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mambair.ops.flops import BACKWARD_FACTOR, ss2d_scan_flops
from mambair.ops.ss2d.triton_launch import ScanInputs, launch_refusal, pack_parameters, scan_forward
from mambair.ops.ss2d.triton_launch_backward import Kept, scan_backward
from mambair.ops.ss2d.triton_plan import ScanShape, kept_shapes


def unavailable_reason(device: torch.device) -> str | None:
    """Why this backend cannot run on `device`, or None."""
    return launch_refusal(device)


def ss2d_scan_triton(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    directions: int,
) -> Tensor:
    """See `ss2d_scan`. The projections to dt, B and C run in x's type, the recurrence in float32; deterministic."""
    tensors = (x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    keep_states = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return _scan(*tensors, directions, keep_states)[0]


def _shape(x: Tensor, dt_projs_weight: Tensor, A_logs: Tensor, directions: int) -> ScanShape:
    batch, height, width, channels = x.shape
    return ScanShape(
        batch=batch,
        height=height,
        width=width,
        channels=channels,
        groups=2 if directions == 4 else 1,
        senses=1 if directions == 1 else 2,
        states=A_logs.shape[1],
        rank=dt_projs_weight.shape[2],
        image=True,
    )


def _project(x: Tensor, x_proj_weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(pixels (B L, E), weight (K P, E) in x's type, their product (B L, K P)).

    One matrix product for all directions: a pixel's projections do not depend on the order of the pixels.
    """
    pixels = x.contiguous().view(-1, x.shape[-1])
    weight = x_proj_weight.flatten(0, 1).to(x.dtype)
    return pixels, weight, pixels @ weight.t()


@torch.library.custom_op("mambair::ss2d_scan_triton", mutates_args=())
def _scan(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    directions: int,
    keep_states: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y (B, H, W, E), states that enter the chunks (B, C, K, EB, N, lanes), sums of delta (B, C, K, EB lanes)).

    The latter two are empty unless `keep_states`.
    """
    shape = _shape(x, dt_projs_weight, A_logs, directions)
    with torch.autocast(x.device.type, enabled=False):
        pixels, _, projected = _project(x, x_proj_weight)
        A2, dt_weight = pack_parameters(A_logs, dt_projs_weight)
        bias, D = dt_projs_bias.contiguous(), Ds.contiguous()
        y, states, sums, _ = scan_forward(shape, ScanInputs(pixels, None, projected, A2, dt_weight, bias, D))
    if not keep_states:
        states, sums = states.new_empty(0), sums.new_empty(0)
    return y.view(x.shape), states, sums


@_scan.register_fake
def _(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds, directions, keep_states):
    states, sums = (
        kept_shapes(_shape(x, dt_projs_weight, A_logs, directions), x.device) if keep_states else ((0,), (0,))
    )
    return (
        x.new_empty(x.shape),
        A_logs.new_empty(states, dtype=torch.float32),
        A_logs.new_empty(sums, dtype=torch.float32),
    )


@torch.library.custom_op("mambair::ss2d_scan_triton_backward", mutates_args=())
def _scan_backward(
    dy: Tensor,
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    states: Tensor,
    sums: Tensor,
    directions: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x and the five parameters, each in its tensor's type and shape."""
    shape = _shape(x, dt_projs_weight, A_logs, directions)
    with torch.autocast(x.device.type, enabled=False):
        # The projections are computed again: 2 % of the time of this pass, against saving them in every layer.
        pixels, weight, projected = _project(x, x_proj_weight)
        A2, dt_weight = pack_parameters(A_logs, dt_projs_weight)
        inputs = ScanInputs(pixels, None, projected, A2, dt_weight, dt_projs_bias.contiguous(), Ds.contiguous())
        dy = dy.to(x.dtype).contiguous()
        found = scan_backward(shape, dy, inputs, Kept(states, sums), None, A_is_log=True)
        dx = found.x.addmm_(found.projected, weight)
        d_x_proj = found.projected.t() @ pixels
    parameters = (x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    gradients = (d_x_proj, found.dt_weight, found.bias, found.A, found.D)
    return dx.view(x.shape), *(
        gradient.to(parameter.dtype).view(parameter.shape)
        for gradient, parameter in zip(gradients, parameters, strict=True)
    )


@_scan_backward.register_fake
def _(dy, x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds, states, sums, directions):
    tensors = (x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    return tuple(tensor.new_empty(tensor.shape) for tensor in tensors)


def _setup_context(ctx, inputs, output) -> None:
    *tensors, directions, _ = inputs
    _, states, sums = output
    ctx.save_for_backward(*tensors, states, sums)
    ctx.directions = directions
    ctx.mark_non_differentiable(states, sums)
    # Otherwise zeros as large as the saved states are made for their gradients.
    ctx.set_materialize_grads(False)


def _backward(ctx, dy, *_):
    if dy is None:
        return (None,) * 8
    gradients = _scan_backward(dy, *ctx.saved_tensors, ctx.directions)
    needed = (gradient if need else None for gradient, need in zip(gradients, ctx.needs_input_grad, strict=False))
    return (*needed, None, None)


_scan.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.mambair.ss2d_scan_triton)
def _forward_flops(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, *_, **__) -> int:
    batch, height, width, channels = x
    directions, _, rank = dt_projs_weight
    return ss2d_scan_flops(batch, height * width, channels, A_logs[1], rank, directions)


@register_flop_formula(torch.ops.mambair.ss2d_scan_triton_backward)
def _backward_flops(dy, *shapes, **_) -> int:
    return BACKWARD_FACTOR * _forward_flops(*shapes)
