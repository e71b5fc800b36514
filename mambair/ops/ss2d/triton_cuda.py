"""ss2d_scan on CUDA GPUs: the Triton kernels as a PyTorch operator with gradients.

Shapes: B batch, H x W pixels, L = H W, E inner channels, K directions, R rank of delta, N states, P = R + 2N.
"""

from typing import Any

import torch
from torch import Tensor

from mambair.ops.direct import may_start_directly
from mambair.ops.flops import BACKWARD_FACTOR, counts_flops, ss2d_scan_flops
from mambair.ops.ss2d.triton_launch import ScanInputs, launch_refusal, pack_parameters, scan_forward
from mambair.ops.ss2d.triton_launch_backward import scan_backward
from mambair.ops.ss2d.triton_plan import ScanShape, kept_bytes


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
    if may_start_directly(*tensors):
        return _DirectScan.apply(*tensors, directions)
    keep_states = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return _scan(*tensors, directions, keep_states)[0]


def image_shape(x: Tensor, dt_projs_weight: Tensor, A_logs: Tensor, directions: int) -> ScanShape:
    """What is scanned for an image x (B, H, W, E)."""
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


def _inputs(pixels: Tensor, projected: Tensor, parameters: tuple[Tensor, ...]) -> ScanInputs:
    dt_projs_weight, dt_projs_bias, A_logs, Ds = parameters
    A2, dt_weight = pack_parameters(A_logs, dt_projs_weight)
    return ScanInputs(pixels, None, projected, A2, dt_weight, dt_projs_bias.contiguous(), Ds.contiguous())


def _forward(x: Tensor, parameters: tuple[Tensor, ...], directions: int) -> tuple[Tensor, Tensor]:
    """(y (B, H, W, E), what the backward pass needs besides the arguments, as bytes)."""
    x_proj_weight, dt_projs_weight, _, A_logs, _ = parameters
    with torch.autocast(x.device.type, enabled=False):
        pixels, _, projected = _project(x, x_proj_weight)
    shape = image_shape(x, dt_projs_weight, A_logs, directions)
    y, kept, _ = scan_forward(shape, _inputs(pixels, projected, parameters[1:]))
    return y.view(x.shape), kept


def _gradients(
    dy: Tensor, x: Tensor, parameters: tuple[Tensor, ...], kept: Tensor, directions: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x and the five parameters, each in its tensor's type and shape."""
    x_proj_weight, dt_projs_weight, _, A_logs, _ = parameters
    shape = image_shape(x, dt_projs_weight, A_logs, directions)
    with torch.autocast(x.device.type, enabled=False):
        # The projections are computed again: 2 % of the time of this pass, against saving them in every layer.
        pixels, weight, projected = _project(x, x_proj_weight)
        dy = dy.to(x.dtype).contiguous()
        found = scan_backward(shape, dy, _inputs(pixels, projected, parameters[1:]), kept, None, A_is_log=True)
        dx = found.x.addmm_(found.projected, weight)
        d_x_proj = found.projected.t() @ pixels
    gradients = (d_x_proj, found.dt_weight, found.bias, found.A, found.D)
    d_x_proj, d_dt_weight, d_dt_bias, d_A_logs, d_Ds = (
        gradient.to(parameter.dtype).view(parameter.shape)
        for gradient, parameter in zip(gradients, parameters, strict=True)
    )
    return dx.view(x.shape), d_x_proj, d_dt_weight, d_dt_bias, d_A_logs, d_Ds


class _DirectScan(torch.autograd.Function):
    """The operator for plain calls, see `mambair.ops.direct`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Any,
        x_proj_weight: Any,
        dt_projs_weight: Any,
        dt_projs_bias: Any,
        A_logs: Any,
        Ds: Any,
        directions: Any,
    ) -> Any:
        parameters = (x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
        y, kept = _forward(x, parameters, directions)
        ctx.save_for_backward(x, *parameters, kept)
        ctx.directions = directions
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        x, *parameters, kept = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is asked for: the operator says that it has none
            gradients = _scan_backward(dy, x, *parameters, kept, ctx.directions)
        else:
            gradients = _gradients(dy, x, tuple(parameters), kept, ctx.directions)
        needed = (gradient if need else None for gradient, need in zip(gradients, ctx.needs_input_grad, strict=False))
        return (*needed, None)


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
) -> tuple[Tensor, Tensor]:
    """(y (B, H, W, E), what the backward pass needs besides the arguments, as bytes; empty unless `keep_states`)."""
    y, kept = _forward(x, (x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds), directions)
    return y, kept if keep_states else kept.new_empty(0)


@_scan.register_fake
def _(
    x: Any,
    x_proj_weight: Any,
    dt_projs_weight: Any,
    dt_projs_bias: Any,
    A_logs: Any,
    Ds: Any,
    directions: Any,
    keep_states: Any,
) -> Any:
    kept = kept_bytes(image_shape(x, dt_projs_weight, A_logs, directions), x.device) if keep_states else 0
    return x.new_empty(x.shape), x.new_empty(kept, dtype=torch.uint8)


@torch.library.custom_op("mambair::ss2d_scan_triton_backward", mutates_args=())
def _scan_backward(
    dy: Tensor,
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    kept: Tensor,
    directions: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x and the five parameters, each in its tensor's type and shape."""
    parameters = (x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    return _gradients(dy, x, parameters, kept, directions)


@_scan_backward.register_fake
def _(
    dy: Any,
    x: Any,
    x_proj_weight: Any,
    dt_projs_weight: Any,
    dt_projs_bias: Any,
    A_logs: Any,
    Ds: Any,
    kept: Any,
    directions: Any,
) -> Any:
    tensors = (x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    return tuple(tensor.new_empty(tensor.shape) for tensor in tensors)


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, directions, _ = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.directions = directions
    ctx.mark_non_differentiable(output[1])
    # Otherwise zeros as large as what is kept are made for its gradient.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Any, *_: Any) -> Any:
    if dy is None:
        return (None,) * 8
    gradients = _scan_backward(dy, *ctx.saved_tensors, ctx.directions)
    needed = (gradient if need else None for gradient, need in zip(gradients, ctx.needs_input_grad, strict=False))
    return (*needed, None, None)


_scan.register_autograd(_backward, setup_context=_setup_context)


@counts_flops(torch.ops.mambair.ss2d_scan_triton)
def _forward_flops(
    x: Any, x_proj_weight: Any, dt_projs_weight: Any, dt_projs_bias: Any, A_logs: Any, *_: Any, **__: Any
) -> int:
    batch, height, width, channels = x
    directions, _, rank = dt_projs_weight
    return ss2d_scan_flops(batch, height * width, channels, A_logs[1], rank, directions)


@counts_flops(torch.ops.mambair.ss2d_scan_triton_backward)
def _backward_flops(dy: Any, *shapes: Any, **_: Any) -> int:
    return BACKWARD_FACTOR * _forward_flops(*shapes)
