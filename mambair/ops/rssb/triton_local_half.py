"""The second half of a residual block as one operator: x skip + CAB(LayerNorm(x)), of classic and of light networks.

Shapes: B images, H x W pixels, `rows` of them in all, C channels, J hidden channels, S of the channel attention.
`width` and so on: channels padded to what products and convolutions like.
"""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mambair.ops.direct import without_autocast
from mambair.ops.launching import Layout, Together, compile_together
from mambair.ops.rssb.local_key import LocalHalf
from mambair.ops.rssb.parameters import ClassicParameters, CommonParameters, LightParameters
from mambair.ops.rssb.rows import MANY_PROGRAMS, Attention
from mambair.ops.rssb.triton_classic import Classic
from mambair.ops.rssb.triton_light import Light

_FP32 = torch.float32


class LocalHalfPlan:
    """The launches of the operator, forward and backward."""

    def __init__(self, key: LocalHalf) -> None:
        self.key, rows = key, key.rows
        self.inside: Any = Light(key) if key.light else Classic(key)
        self.kinds: Any = LightParameters if key.light else ClassicParameters
        C, kind, parameter = key.channels, key.kind, key.parameter
        width, out_width = self.inside.width, self.inside.out_width
        self.norm = rows.norm(C, width, key.norm_eps, self.inside.ones, key.x, parameter, kind)
        self.attention = Attention(rows, C, key.squeezed, out_width, self.inside.bias, kind, parameter, key.out)
        self.add = rows.add_skip(C, out_width, "channel", self.inside.bias, kind, _FP32, parameter, key.x, key.out)
        self.to_branch = rows.to_branch(C, out_width, "channel", key.out, _FP32, kind)
        self.norm_backward = rows.norm_backward(C, width, key.norm_eps, kind, key.x, parameter, key.out)
        self.sum_norm = rows.sum_parts(C, width, 3, parameter, programs=MANY_PROGRAMS)
        attention = self.attention
        self.kept = Layout(means=attention.per_channel, hidden=attention.per_squeezed, scale=attention.per_channel)
        self.forward_work = Layout(sums=attention.sums)
        self.backward_work = Layout(
            sums=attention.gradient_sums_shape, d_before=attention.per_channel, d_hidden=attention.per_squeezed,
            shift=attention.per_channel, d_bias=attention.per_channel,
            norm=((rows.parts(width, MANY_PROGRAMS), 3, C), _FP32),
        )  # fmt: skip
        compile_together((self.norm, self.add, *attention.forward_kernels, *self.inside.forward_kernels), key.device)
        self._backward_compiled = False
        self._gradients: Together | None = None

    def forward(self, x: Tensor, p: CommonParameters, q: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(the result; what the backward pass needs besides the arguments)."""
        key = self.key
        normed = torch.empty(key.rows.count, self.inside.width, dtype=key.kind, device=key.device)
        self.norm(x.data_ptr(), p.norm_weight.data_ptr(), p.norm_bias.data_ptr(), normed.data_ptr())
        u, inside = self.inside.forward(normed, q)
        attention, (means, hidden, scale) = self.kept.allocate(key.device)
        memory, (sums,) = self.forward_work.allocate(key.device)
        bias = self._last_bias(q)
        self.attention.sum(u.data_ptr(), sums)
        self.attention.weigh(
            sums, bias, p.squeeze_weight.data_ptr(), p.squeeze_bias.data_ptr(), p.excite_weight.data_ptr(),
            p.excite_bias.data_ptr(), means, hidden, scale,
        )  # fmt: skip
        out = torch.empty(x.shape, dtype=key.out, device=key.device)
        self.add(u.data_ptr(), scale, bias, x.data_ptr(), p.skip_scale.data_ptr(), out.data_ptr())
        del memory
        return out, (normed, u, attention, *inside)

    def _last_bias(self, q: Any) -> int:
        """The bias that is still to be added to u; some address where there is none."""
        return q.second_bias.data_ptr()

    def backward(
        self, d_out: Tensor, x: Tensor, p: CommonParameters, q: Any, kept: tuple[Tensor, ...]
    ) -> tuple[Tensor, CommonParameters, Any]:
        """Gradients of x and of the parameters."""
        key = self.key
        if not self._backward_compiled:
            mine = (self.to_branch, self.norm_backward, self.sum_norm, *self.attention.backward_kernels)
            compile_together((*mine, *self.inside.backward_kernels), key.device)
            self._backward_compiled = True
        normed, u, attention, *inside = kept
        means, hidden, scale = (attention.data_ptr() + offset for offset in self.kept.offsets)
        if self._gradients is None:
            self._gradients = Together([parameter.shape for parameter in (*p, *q)], key.parameter, key.device)
        gradients = self._gradients.empty()
        d, e = CommonParameters(*gradients[: len(p)]), self.kinds(*gradients[len(p) :])
        memory, (sums, d_before, d_hidden, shift, d_bias, norm_parts) = self.backward_work.allocate(key.device)
        bias = self._last_bias(q)
        self.attention.sum_gradients(d_out.data_ptr(), u.data_ptr(), bias, sums)
        self.attention.weigh_backward(
            sums, p.squeeze_weight.data_ptr(), p.excite_weight.data_ptr(), hidden, scale, d_before, d_hidden, shift,
            d_bias,
        )  # fmt: skip
        self.attention.sum_weights(
            d_before, d_hidden, means, hidden, d_bias, d.squeeze_weight.data_ptr(), d.squeeze_bias.data_ptr(),
            d.excite_weight.data_ptr(), d.excite_bias.data_ptr(), e.second_bias.data_ptr(),
        )  # fmt: skip
        d_u = torch.empty(key.rows.count, self.inside.out_width, dtype=key.kind, device=key.device)
        self.to_branch(d_out.data_ptr(), scale, shift, d_u.data_ptr())
        d_normed = self.inside.backward(d_u, normed, q, e, tuple(inside))
        d_x = torch.empty_like(x)
        self.norm_backward(
            d_normed.data_ptr(), x.data_ptr(), p.norm_weight.data_ptr(), d_out.data_ptr(), p.skip_scale.data_ptr(),
            d_x.data_ptr(), norm_parts,
        )  # fmt: skip
        self.sum_norm(norm_parts, d.norm_weight.data_ptr(), d.norm_bias.data_ptr(), d.skip_scale.data_ptr())
        del memory
        return d_x, d, e


@functools.lru_cache(maxsize=512)
def local_half_plan(key: LocalHalf) -> LocalHalfPlan:
    """Kept: a plan takes longer than the pass that it is for."""
    return LocalHalfPlan(key)


class LocalHalfFunction(torch.autograd.Function):
    """The operator with gradients: plan, x (B, H, W, C), common parameters, those of the kind -> (B, H, W, C)."""

    @staticmethod
    def forward(ctx: Any, plan: LocalHalfPlan, x: Tensor, *parameters: Tensor) -> Tensor:
        count = len(CommonParameters._fields)
        p, q = CommonParameters(*parameters[:count]), plan.kinds(*parameters[count:])
        out, kept = plan.forward(x, p, q)
        ctx.plan, ctx.parameters = plan, len(parameters)
        ctx.save_for_backward(x, *parameters, *kept)
        return out

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, *rest = ctx.saved_tensors
        plan, count = ctx.plan, len(CommonParameters._fields)
        p, q = CommonParameters(*rest[:count]), plan.kinds(*rest[count : ctx.parameters])
        with torch.cuda.device_of(x):
            d_x, d, e = plan.backward(d_out.contiguous(), x, p, q, tuple(rest[ctx.parameters :]))
        needed = ctx.needs_input_grad
        return (
            None,
            d_x if needed[1] else None,
            *(gradient if need else None for gradient, need in zip((*d, *e), needed[2:], strict=True)),
        )
