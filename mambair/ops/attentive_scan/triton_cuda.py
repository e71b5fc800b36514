"""attentive_scan on CUDA GPUs: the kernels of ss2d on the sorted places, as a PyTorch operator with gradients.

Shapes: B batch, L places, D inner channels, R rank of delta, N states, T tokens, P = R + 2N.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mambair.ops.attentive_scan.operands import Operands
from mambair.ops.attentive_scan.triton_launch import add_prompts, move_rows, prompt_gradients, sorted_rows
from mambair.ops.flops import BACKWARD_FACTOR, Shape, counts_flops, ss2d_scan_flops
from mambair.ops.ss2d.triton_launch import ScanInputs, launch_refusal, pack_parameters, scan_forward
from mambair.ops.ss2d.triton_launch_backward import scan_backward
from mambair.ops.ss2d.triton_plan import ScanShape, kept_bytes


def unavailable_reason(device: torch.device) -> str | None:
    """Why this backend cannot run on `device`, or None."""
    return launch_refusal(device)


class Saved(NamedTuple):
    """What the backward pass is given besides the gradient: what the forward pass kept, and its operands."""

    rows: Tensor
    """(B L): the sorted places."""
    sequence: Tensor
    """(B L, D): x in their order."""
    kept: Tensor
    """What the scan kept, as bytes."""
    tokens: Tensor
    prompts: Tensor
    x_proj_weight: Tensor
    dt_projs_weight: Tensor
    dt_projs_bias: Tensor
    A_logs: Tensor
    Ds: Tensor


def attentive_scan_triton(operands: Operands) -> Tensor:
    """See `attentive_scan`. Projections run in x's type, the recurrence in float32; deterministic."""
    needed = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in operands)
    if torch.compiler.is_compiling():
        return _scan(*operands, needed)[0]
    # Called directly, since PyTorch's way from an operator of one's own to its gradients takes the host 0.1 ms more.
    return _AttentiveScan.apply(*operands) if needed else _run(operands, keep=False)[0]


def _shape(batch: int, length: int, channels: int, rank: int, states: int) -> ScanShape:
    """An image of one line, scanned in one direction."""
    return ScanShape(
        batch=batch, height=1, width=length, channels=channels, groups=1, senses=1, states=states, rank=rank, image=True
    )


def _shape_of(operands: Operands) -> ScanShape:
    batch, length, channels = operands.x.shape
    return _shape(batch, length, channels, operands.dt_projs_weight.shape[2], operands.A_logs.shape[1])


def _inputs(sequence: Tensor, given: Operands | Saved) -> tuple[Tensor, ScanInputs]:
    """(x_proj_weight (P, D) in x's type, the scan's inputs), projections (B L, P) with the prompts added to C."""
    weight = given.x_proj_weight[0].to(sequence.dtype)
    projected = sequence @ weight.t()
    add_prompts(projected, given.tokens.contiguous(), given.prompts.contiguous())
    A2, dt_weight = pack_parameters(given.A_logs, given.dt_projs_weight)
    bias, D = given.dt_projs_bias.contiguous(), given.Ds.contiguous()
    return weight, ScanInputs(sequence, None, projected, A2, dt_weight, bias, D)


def _run(operands: Operands, keep: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(y (B, L, D), rows (B L), sorted x (B L, D), what the scan kept, as bytes); all but y empty unless `keep`."""
    x, shape = operands.x, _shape_of(operands)
    with torch.autocast(x.device.type, enabled=False):
        rows = sorted_rows(operands.tokens)
        places = x.flatten(0, 1)
        sequence = move_rows(places if places.stride(1) == 1 else places.contiguous(), rows, back=False)
        _, inputs = _inputs(sequence, operands)
        y, kept, _ = scan_forward(shape, inputs)
        y = move_rows(y, rows, back=True).view(x.shape)
    if keep:
        return y, rows, sequence, kept
    return y, x.new_empty(0), x.new_empty(0), x.new_empty(0)


def _run_backward(
    dy: Tensor, saved: Saved, policy_needed: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, policy (empty unless needed, of x's type), prompts and the five parameters."""
    sequence, prompts = saved.sequence, saved.prompts.contiguous()
    batch, length, channels = dy.shape
    states = saved.A_logs.shape[1]
    shape = _shape(batch, length, channels, saved.dt_projs_weight.shape[2], states)
    with torch.autocast(dy.device.type, enabled=False):
        # The projections are computed again, against saving them in every layer.
        weight, inputs = _inputs(sequence, saved)
        dy_sorted = move_rows(dy.to(sequence.dtype).reshape(sequence.shape), saved.rows, back=False)
        found = scan_backward(shape, dy_sorted, inputs, saved.kept, None, A_is_log=True)
        dx = move_rows(found.x.addmm_(found.projected, weight), saved.rows, back=True)
        d_x_proj = found.projected.t() @ sequence
        d_prompts = prompt_gradients(found.projected, saved.tokens.contiguous(), prompts)
        d_policy = sequence.new_empty(0)
        if policy_needed:
            d_C = found.projected[:, -states:]
            d_policy = (d_C @ prompts.t().to(d_C.dtype)).view(batch, length, -1)
    return (
        dx.view(dy.shape),
        d_policy,
        d_prompts.to(prompts.dtype),
        _as(saved.x_proj_weight, d_x_proj),
        _as(saved.dt_projs_weight, found.dt_weight),
        _as(saved.dt_projs_bias, found.bias),
        _as(saved.A_logs, found.A),
        _as(saved.Ds, found.D),
    )


def _as(parameter: Tensor, gradient: Tensor) -> Tensor:
    return gradient.to(parameter.dtype).view(parameter.shape)


class _AttentiveScan(torch.autograd.Function):
    """The operator, when nothing is traced."""

    @staticmethod
    def forward(ctx: Any, *tensors: Any) -> Tensor:
        operands = Operands(*tensors)
        y, *kept = _run(operands, keep=True)
        _save(ctx, operands, kept)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return _gradients(ctx, _run_backward, dy)


def _save(ctx: Any, operands: Operands, kept: list[Tensor]) -> None:
    _, tokens, policy, *parameters = operands
    ctx.save_for_backward(*kept, tokens, *parameters)
    ctx.policy_type = None if policy is None else policy.dtype


def _gradients(ctx: Any, backward: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    """A gradient, or None where none is needed, for each of the operator's nine tensors."""
    dx, d_policy, *others = backward(dy, Saved(*ctx.saved_tensors), ctx.needs_input_grad[2])
    if ctx.needs_input_grad[2]:
        d_policy = d_policy.to(ctx.policy_type)
    found = (dx, None, d_policy, *others)
    return tuple(gradient if need else None for gradient, need in zip(found, ctx.needs_input_grad, strict=False))


@torch.library.custom_op("mambair::attentive_scan_triton", mutates_args=())
def _scan(
    x: Tensor,
    tokens: Tensor,
    policy: Tensor | None,
    prompts: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`_run` for tracing."""
    return _run(Operands(x, tokens, policy, prompts, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds), keep)


@_scan.register_fake
def _(*operands_and_keep: Any) -> tuple[Tensor, ...]:
    *tensors, keep = operands_and_keep
    operands = Operands(*tensors)
    x = operands.x
    if not keep:
        return x.new_empty(x.shape), x.new_empty(0), x.new_empty(0), x.new_empty(0)
    return (
        x.new_empty(x.shape),
        operands.tokens.new_empty(operands.tokens.numel(), dtype=torch.int64),
        x.new_empty(x.shape).flatten(0, 1),
        x.new_empty(kept_bytes(_shape_of(operands), x.device), dtype=torch.uint8),
    )


@torch.library.custom_op("mambair::attentive_scan_triton_backward", mutates_args=())
def _scan_backward(
    dy: Tensor,
    rows: Tensor,
    sequence: Tensor,
    kept: Tensor,
    tokens: Tensor,
    prompts: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    policy_needed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`_run_backward` for tracing."""
    parameters = (x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    return _run_backward(dy, Saved(rows, sequence, kept, tokens, prompts, *parameters), policy_needed)


@_scan_backward.register_fake
def _(dy: Tensor, *saved_and_need: Any) -> tuple[Tensor, ...]:
    *tensors, policy_needed = saved_and_need
    saved = Saved(*tensors)
    d_policy = saved.sequence.new_empty((*dy.shape[:2], saved.prompts.shape[0]) if policy_needed else 0)
    others = (tensor.new_empty(tensor.shape) for tensor in saved[4:])  # from the prompts on
    return saved.sequence.new_empty(dy.shape), d_policy, *others


def _trace_backward(dy: Tensor, saved: Saved, policy_needed: bool) -> tuple[Tensor, ...]:
    return _scan_backward(dy, *saved, policy_needed)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, _ = inputs
    _, *kept = output
    _save(ctx, Operands(*tensors), kept)
    ctx.mark_non_differentiable(*kept)
    # Otherwise zeros as large as the saved states are made for their gradients.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    return (None,) * 10 if dy is None else (*_gradients(ctx, _trace_backward, dy), None)


_scan.register_autograd(_backward, setup_context=_setup_context)


@counts_flops(torch.ops.mambair.attentive_scan_triton)
def _forward_flops(
    x: Shape, tokens: Shape, policy: Shape | None, prompts: Shape, x_proj: Shape, dt_projs: Shape, *_: Any, **__: Any
) -> int:
    batch, length, channels = x
    return ss2d_scan_flops(batch, length, channels, prompts[1], dt_projs[2], 1)


@counts_flops(torch.ops.mambair.attentive_scan_triton_backward)
def _backward_flops(dy: Shape, *shapes: Any, **_: Any) -> int:
    prompts, dt_projs = shapes[4], shapes[6]
    batch, length, channels = dy
    return BACKWARD_FACTOR * ss2d_scan_flops(batch, length, channels, prompts[1], dt_projs[2], 1)
