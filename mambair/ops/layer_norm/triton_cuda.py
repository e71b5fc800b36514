"""layer_norm on CUDA GPUs: the kernels of residual blocks that go row by row, as an autograd function.

Shapes: `rows` of C channels; P parts of sums.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mambair.ops.launching import compile_together
from mambair.ops.rssb.rows import MANY_PROGRAMS, Rows

_FP32 = torch.float32


@dataclass(frozen=True)
class LayerNorm:
    """What the operator is applied to: sizes, and types of x, of weight and bias, and of the result."""

    rows: int
    channels: int
    eps: float
    x: torch.dtype
    parameter: torch.dtype
    out: torch.dtype
    device: torch.device


class LayerNormPlan:
    """The launches of the operator, forward and backward."""

    def __init__(self, key: LayerNorm) -> None:
        self.key = key
        rows, C = Rows(1, key.rows, key.device), key.channels
        self._norm = rows.norm(C, C, key.eps, False, key.x, key.parameter, key.out)
        self._backward = rows.norm_backward(C, C, key.eps, key.out, key.x, key.parameter, None)
        self._sum = rows.sum_parts(C, C, 2, key.parameter, programs=MANY_PROGRAMS)
        self._parts = (rows.parts(C, MANY_PROGRAMS), 2, C)
        self._backward_compiled = False

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = torch.empty(x.shape, dtype=self.key.out, device=x.device)
        self._norm(x.data_ptr(), weight.data_ptr(), bias.data_ptr(), y.data_ptr())
        return y

    def backward(self, d_y: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, weight and bias."""
        if not self._backward_compiled:
            compile_together((self._backward, self._sum), x.device)
            self._backward_compiled = True
        d_x, d_weight, d_bias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
        parts = torch.empty(self._parts, dtype=_FP32, device=x.device)
        dy, to = d_y.data_ptr(), d_weight.data_ptr()
        self._backward(dy, x.data_ptr(), weight.data_ptr(), dy, dy, d_x.data_ptr(), parts.data_ptr())
        self._sum(parts.data_ptr(), to, d_bias.data_ptr(), to)
        return d_x, d_weight, d_bias


@functools.lru_cache(maxsize=512)
def layer_norm_plan(key: LayerNorm) -> LayerNormPlan:
    """Kept: a plan takes longer than the pass that it is for."""
    return LayerNormPlan(key)


class LayerNormFunction(torch.autograd.Function):
    """The operator with gradients: plan, x (..., C), weight (C), bias (C) -> (..., C)."""

    @staticmethod
    def forward(ctx: Any, plan: LayerNormPlan, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.plan = plan
        ctx.save_for_backward(x, weight)
        return plan.forward(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        with torch.cuda.device_of(x):
            gradients = ctx.plan.backward(d_y.contiguous(), x, weight)
        needed = zip(gradients, ctx.needs_input_grad[1:], strict=True)
        return (None, *(gradient if need else None for gradient, need in needed))
