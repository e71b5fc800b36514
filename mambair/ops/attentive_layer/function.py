"""A part of an attentive layer as one autograd function, whose plan starts the kernels."""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mambair.ops.direct import without_autocast

Tensors = tuple[Tensor | None, ...]


class Plan(Protocol):
    """The launches of a part, forward and backward."""

    def forward(self, tensors: Tensors, keep: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(the result; what the backward pass needs besides the arguments, if it is to be kept)."""

    def backward(self, d_out: Tensor, tensors: Tensors, kept: tuple[Tensor, ...]) -> Tensors:
        """The gradient of each argument, None of those that have none; d_out is contiguous."""


class PartFunction(torch.autograd.Function):
    """The part with gradients: plan, its tensors, contiguous -> (B, H, W, C)."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *tensors: Tensor | None) -> Tensor:
        out, kept = plan.forward(tensors, any(ctx.needs_input_grad))
        ctx.plan, ctx.count = plan, len(tensors)
        ctx.save_for_backward(*tensors, *kept)
        return out

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, d_out: Tensor) -> Tensors:  # type: ignore[override]
        saved = ctx.saved_tensors
        with torch.cuda.device_of(d_out):
            found = ctx.plan.backward(d_out.contiguous(), saved[: ctx.count], saved[ctx.count :])
        needed = ctx.needs_input_grad[1:]
        return (None, *(gradient if need else None for gradient, need in zip(found, needed, strict=True)))
