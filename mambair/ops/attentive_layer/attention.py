"""Window attention as one operator with what is around it: x + proj(attention(qkv(LayerNorm(x)))).

Shapes: B images, H x W pixels, `rows` of them in all, C channels, h heads of d channels, which the kernels take as D:
a power of two, zeros behind the d-th, so that the heads of queries, keys and values lie in whole lines of memory.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from mambair.ops.attentive_layer.function import Tensors
from mambair.ops.attentive_layer.launches import LayerRows
from mambair.ops.copies import Copies, Copy
from mambair.ops.launching import Layout, Together, compile_together
from mambair.ops.rssb.rows import padded
from mambair.ops.rssb.triton_light import with_ones
from mambair.ops.window_attention.triton_launch import Windows, window_plan
from mambair.ops.window_attention.triton_tiles import padded_channels

_FP32 = torch.float32


class AttentionTensors(NamedTuple):
    """The arguments, as modules name them."""

    x: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    qkv_weight: Tensor
    table: Tensor
    proj_weight: Tensor
    proj_bias: Tensor
    qkv_bias: Tensor | None = None


@dataclass(frozen=True)
class Attention:
    """What the operator is applied to. kind: the type that products run in."""

    batch: int
    height: int
    width: int
    channels: int
    heads: int
    window_size: int
    shift: int
    qkv_bias: bool
    x: torch.dtype
    kind: torch.dtype
    parameter: torch.dtype
    eps: float
    device: torch.device

    @property
    def out(self) -> torch.dtype:
        """The result's type."""
        return functools.reduce(torch.promote_types, (self.x, self.parameter, self.kind))


class AttentionPlan:
    """The launches of the operator."""

    def __init__(self, key: Attention) -> None:
        self.key = key
        C, h, kind, parameter, device = key.channels, key.heads, key.kind, key.parameter, key.device
        d = C // h
        D = padded_channels(d)
        rows = LayerRows(key.batch, key.height * key.width, device)
        self.rows = rows.count
        self.in_width, self.out_width = with_ones(C), padded(C, kind)
        self.inner, self.qkv_width = h * D, 3 * h * D
        sizes = Windows(key.batch, key.height, key.width, h, D, key.window_size, key.shift, d)
        self.windows = window_plan(sizes, kind, parameter, device)
        known = 1 if key.qkv_bias else 0
        # The packed weights of queries, keys and values: (in_width, 3 h D), their biases in row C.
        self.pack = Copies(
            [
                Copy((C, 3 * h, D), (1, d * C, C), (C, d), parameter, kind),
                Copy((self.in_width - C, 3 * h, D), (0, d, 1), (known, d), parameter, kind),
                Copy((self.out_width, h, D), (C, d, 1), (C, d), parameter, kind),
            ],
            device,
        )
        self.unpack = Copies(
            [
                Copy((3 * h, d, C), (D, 1, self.qkv_width), (3 * h, C), kind, parameter),
                Copy((known, 3 * h, d), (0, D, 1), (known, d), kind, parameter),
                Copy((C, h, d), (self.inner, D, 1), (C, d), kind, parameter),
            ],
            device,
        )
        self.bias_row = C * self.qkv_width * kind.itemsize
        self.norm = rows.norm(C, self.in_width, key.eps, True, key.x, parameter, kind)
        self.add = rows.add(C, self.out_width, True, False, kind, parameter, key.x, key.out)
        self.to_branch = rows.to_branch(C, self.out_width, "none", key.out, _FP32, kind)
        self.add_backward = rows.add_backward(C, self.in_width, key.eps, False, kind, parameter, key.x, key.out)
        self.sum_norm = rows.sum_parts(C, self.in_width, 3, parameter)
        self.work = Layout(norm=((rows.parts(self.in_width), 3, C), _FP32))
        compile_together((self.pack.kernel, self.norm, *self.windows.forward_kernels, self.add), device)
        self._backward_kernels = (
            self.unpack.kernel, self.to_branch, self.add_backward, self.sum_norm, *self.windows.backward_kernels
        )  # fmt: skip
        self._backward_compiled = False
        self._gradients: Together | None = None

    def _new(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.key.kind, device=self.key.device)

    def forward(self, tensors: Tensors, keep: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        key, p = self.key, AttentionTensors(*cast(tuple[Tensor, ...], tensors))
        qkv_weight, proj = self._new(self.in_width, self.qkv_width), self._new(self.out_width, self.inner)
        bias = p.qkv_weight if p.qkv_bias is None else p.qkv_bias
        packed = qkv_weight.data_ptr()
        self.pack(
            [p.qkv_weight.data_ptr(), bias.data_ptr(), p.proj_weight.data_ptr()],
            [packed, packed + self.bias_row, proj.data_ptr()],
        )
        qkv = torch.mm(self._normed(p), qkv_weight).view(*p.x.shape[:3], self.qkv_width)
        table = self.windows.spread_bias(p.table)
        y, norms = self.windows.attend(qkv, table, keep)
        branch = torch.mm(y.view(self.rows, self.inner), proj.t())
        out = torch.empty(p.x.shape, dtype=key.out, device=key.device)
        x = p.x.data_ptr()
        self.add(branch.data_ptr(), p.proj_bias.data_ptr(), x, x, x, out.data_ptr())
        return out, (qkv_weight, proj, qkv, table, y, norms)

    def _normed(self, p: AttentionTensors) -> Tensor:
        """The LayerNorm's result, with ones behind: computed again in the backward pass, in place of kept."""
        normed = self._new(self.rows, self.in_width)
        self.norm(p.x.data_ptr(), p.norm_weight.data_ptr(), p.norm_bias.data_ptr(), normed.data_ptr())
        return normed

    def backward(self, d_out: Tensor, tensors: Tensors, kept: tuple[Tensor, ...]) -> Tensors:
        key, p = self.key, AttentionTensors(*cast(tuple[Tensor, ...], tensors))
        if not self._backward_compiled:
            compile_together(self._backward_kernels, key.device)
            self._backward_compiled = True
        qkv_weight, proj, qkv, table, y, norms = kept
        if self._gradients is None:
            shapes = [t.shape for t in p[1:] if t is not None]
            self._gradients = Together(shapes, key.parameter, key.device)
        d_x = torch.empty_like(p.x)
        d = AttentionTensors(d_x, *self._gradients.empty())
        memory, (parts,) = self.work.allocate(key.device)
        d_branch = self._new(self.rows, self.out_width)
        self.to_branch(d_out.data_ptr(), parts, parts, d_branch.data_ptr())
        d_proj = torch.mm(d_branch.t(), y.view(self.rows, self.inner))
        d_y = torch.mm(d_branch, proj).view(y.shape)
        d_qkv = self.windows.gradients(d_y, qkv, table, y, norms, d.table).view(self.rows, -1)
        d_qkv_weight = torch.mm(self._normed(p).t(), d_qkv)
        d_normed = torch.mm(d_qkv, qkv_weight.t())
        packed = d_qkv_weight.data_ptr()
        bias = d.qkv_weight if d.qkv_bias is None else d.qkv_bias
        self.unpack(
            [packed, packed + self.bias_row, d_proj.data_ptr()],
            [d.qkv_weight.data_ptr(), bias.data_ptr(), d.proj_weight.data_ptr()],
        )
        x = p.x.data_ptr()
        self.add_backward(
            d_normed.data_ptr(), x, p.norm_weight.data_ptr(), d_out.data_ptr(), x, x, d_x.data_ptr(), x, parts
        )
        self.sum_norm(parts, d.norm_weight.data_ptr(), d.norm_bias.data_ptr(), d.proj_bias.data_ptr())
        del memory
        return tuple(d)[: len(tensors)]


@functools.lru_cache(maxsize=512)
def attention_plan(key: Attention) -> AttentionPlan:
    """Kept: a plan takes longer than the pass that it is for."""
    return AttentionPlan(key)
