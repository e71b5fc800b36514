"""A feed-forward of MambaIRv2 as one operator: x + other scale + FFN(LayerNorm(x)).

Shapes: B images, H x W pixels, `rows` of them in all, C channels, F hidden channels, k sides of the convolution.
"""

import functools
from typing import cast

import torch
from torch import Tensor

from mambair.ops.attentive_layer.feed_forward_key import FeedForward, FeedForwardTensors
from mambair.ops.attentive_layer.function import Tensors
from mambair.ops.attentive_layer.launches import LayerRows
from mambair.ops.attentive_layer.local import Gated, Local
from mambair.ops.attentive_layer.products import Product
from mambair.ops.copies import Copies, transposed
from mambair.ops.launching import Layout, Together, compile_together

_FP32 = torch.float32


class FeedForwardPlan:
    """The launches of the operator."""

    def __init__(self, key: FeedForward) -> None:
        self.key = key
        C, kind, parameter, device = key.channels, key.kind, key.parameter, key.device
        rows = LayerRows(key.batch, key.height * key.width, device)
        self.rows = rows.count
        self.first = Product(C, key.hidden, True, kind, parameter, device)
        self.second = Product(key.convolved, C, True, kind, parameter, device)
        inside = Gated if key.gated else Local
        self.inside = inside(key, rows, self.first.width, self.second.height)
        to_taps = transposed(key.convolved, key.size**2, parameter, _FP32)
        self.pack = Copies([*self.first.pack, *self.second.pack, to_taps], device)
        self.unpack = Copies([*self.first.unpack, *self.second.unpack], device)
        self.norm = rows.norm(C, self.first.height, key.eps, True, key.x, parameter, kind)
        self.add = rows.add(C, self.second.width, False, True, kind, parameter, key.x, key.out)
        self.to_branch = rows.to_branch(C, self.second.width, "none", key.out, _FP32, kind)
        self.add_backward = rows.add_backward(C, self.first.height, key.eps, True, kind, parameter, key.x, key.out)
        self.sum_norm = rows.sum_parts(C, self.first.height, 3, parameter)
        self.work = Layout(
            inside=((self.inside.work.size,), torch.uint8), norm=((rows.parts(self.first.height), 3, C), _FP32)
        )
        compile_together((self.pack.kernel, self.norm, self.add, *self.inside.forward_kernels), device)
        self._backward_kernels = (
            self.unpack.kernel, self.to_branch, self.add_backward, self.sum_norm, *self.inside.backward_kernels
        )  # fmt: skip
        self._backward_compiled = False
        self._gradients: Together | None = None

    def forward(self, tensors: Tensors, keep: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        key, p = self.key, FeedForwardTensors(*cast(tuple[Tensor, ...], tensors))
        first, second = self.first.new(), self.second.new()
        taps = torch.empty(key.size**2, key.convolved, dtype=_FP32, device=key.device)
        self.pack(
            [*(t.data_ptr() for t in (p.first_weight, p.first_bias, p.second_weight, p.second_bias, p.conv_weight))],
            [*self.first.halves(first), *self.second.halves(second), taps.data_ptr()],
        )
        u = torch.mm(self._normed(p), first)
        y, inside = self.inside.forward(u, p, taps)
        branch = torch.mm(y, second)
        out = torch.empty(p.x.shape, dtype=key.out, device=key.device)
        x = p.x.data_ptr()
        self.add(branch.data_ptr(), x, x, p.other.data_ptr(), p.scale.data_ptr(), out.data_ptr())
        return out, (first, second, taps, u, *inside)

    def _normed(self, p: FeedForwardTensors) -> Tensor:
        """The LayerNorm's result, with ones behind: computed again in the backward pass, in place of kept."""
        normed = torch.empty(self.rows, self.first.height, dtype=self.key.kind, device=self.key.device)
        self.norm(p.x.data_ptr(), p.norm_weight.data_ptr(), p.norm_bias.data_ptr(), normed.data_ptr())
        return normed

    def backward(self, d_out: Tensor, tensors: Tensors, kept: tuple[Tensor, ...]) -> Tensors:
        key, p = self.key, FeedForwardTensors(*cast(tuple[Tensor, ...], tensors))
        if not self._backward_compiled:
            compile_together(self._backward_kernels, key.device)
            self._backward_compiled = True
        first, second, taps, u, *state = kept
        y, *inside = self.inside.restored(u, tuple(state))
        if self._gradients is None:
            shapes = [t.shape for t in p[2:] if t is not None]
            self._gradients = Together(shapes, key.parameter, key.device)
        d_x, d_other = torch.empty_like(p.x), torch.empty_like(p.other)
        d = FeedForwardTensors(d_x, d_other, *self._gradients.empty())
        memory, (work, parts) = self.work.allocate(key.device)
        d_branch = torch.empty(self.rows, self.second.width, dtype=key.kind, device=key.device)
        self.to_branch(d_out.data_ptr(), parts, parts, d_branch.data_ptr())
        d_second = torch.mm(y.t(), d_branch)
        d_u = self.inside.backward(torch.mm(d_branch, second.t()), u, p, d, taps, tuple(inside), work)
        d_first = torch.mm(self._normed(p).t(), d_u)
        d_normed = torch.mm(d_u, first.t())
        self.unpack(
            [*self.first.halves(d_first), *self.second.halves(d_second)],
            [t.data_ptr() for t in (d.first_weight, d.first_bias, d.second_weight, d.second_bias)],
        )
        self.add_backward(
            d_normed.data_ptr(), p.x.data_ptr(), p.norm_weight.data_ptr(), d_out.data_ptr(), p.other.data_ptr(),
            p.scale.data_ptr(), d_x.data_ptr(), d_other.data_ptr(), parts,
        )  # fmt: skip
        self.sum_norm(parts, d.norm_weight.data_ptr(), d.norm_bias.data_ptr(), d.scale.data_ptr())
        del memory
        return tuple(d)[: len(tensors)]


@functools.lru_cache(maxsize=512)
def feed_forward_plan(key: FeedForward) -> FeedForwardPlan:
    """Kept: a plan takes longer than the pass that it is for."""
    return FeedForwardPlan(key)
