"""The attentive state-space module as one operator with what is around it: x + ASSM(LayerNorm(x)).

Shapes: B images, H x W pixels, `rows` of them in all, C channels, E inner channels, J of the router, T tokens, r rank
of the prompts, N states, R rank of delta.
"""

import functools
from typing import cast

import torch
from torch import Tensor

from mambair.ops.attentive_layer.function import Tensors
from mambair.ops.attentive_layer.order_launches import OrderRows
from mambair.ops.attentive_layer.products import Product
from mambair.ops.attentive_layer.state_space_key import Kept, StateSpace, StateSpaceTensors
from mambair.ops.attentive_scan.triton_launch import add_prompts, prompt_gradients, sorted_rows
from mambair.ops.copies import Copies, Copy, transposed
from mambair.ops.depthwise.triton_launch import Convolution, Image, convolution_plan
from mambair.ops.launching import Layout, compile_together
from mambair.ops.ss2d.triton_launch import ScanInputs, pack_parameters, scan_forward
from mambair.ops.ss2d.triton_launch_backward import scan_backward
from mambair.ops.ss2d.triton_plan import ScanShape

_FP32 = torch.float32


class StateSpacePlan:
    """The launches of the operator."""

    def __init__(self, key: StateSpace) -> None:
        self.key = key
        C, E, kind, parameter, device = key.channels, key.inner, key.kind, key.parameter, key.device
        rows = OrderRows(key.batch, key.height * key.width, device)
        self.rows, self.projections = rows.count, key.rank + 2 * key.states

        def product(inputs: int, outputs: int) -> Product:
            return Product(inputs, outputs, True, kind, parameter, device)

        self.route_first, self.route_second = product(C, key.routed), product(key.routed, key.tokens)
        self.into, self.out = product(C, E), product(E, C)
        self.shape = ScanShape(
            batch=key.batch, height=1, width=key.height * key.width, channels=E, groups=1, senses=1, states=key.states,
            rank=key.rank, image=True,
        )  # fmt: skip
        pixel = self.into.width
        strides = (key.height * key.width * pixel, key.width * pixel, pixel)
        image = Image((key.batch, key.height, key.width, E), strides, kind)
        self.conv = convolution_plan(Convolution(image, parameter, parameter, 1, False, pixel, pixel), device)
        to_kind = Copy((self.projections, 1, E), (E, 0, 1), (self.projections, E), parameter, kind)
        self.pack = (
            Copies([*self.route_first.pack, *self.route_second.pack, *self.into.pack], device),
            Copies([*self.out.pack, transposed(E, 9, parameter, _FP32), to_kind], device),
        )
        self.unpack = (
            Copies([*self.route_first.unpack, *self.route_second.unpack, *self.into.unpack], device),
            Copies(self.out.unpack, device),
        )
        in_width, hidden, logits = self.into.height, self.route_second.height, self.route_second.width
        self.norm = rows.norm(C, in_width, key.eps, True, key.x, parameter, kind)
        self.gelu = rows.gelu(key.routed, self.route_first.width, hidden, False, True, kind, parameter)
        self.route = rows.route(key.tokens, logits, key.noise, kind)
        self.gate = rows.ordered_gate(E, pixel, kind)
        self.out_norm = rows.ordered_norm(E, self.out.height, key.out_eps, kind, parameter)
        self.add = rows.add(C, self.out.width, False, False, kind, parameter, key.x, key.out)
        self.to_branch = rows.to_branch(C, self.out.width, "none", key.out, _FP32, kind)
        self.out_norm_backward = rows.ordered_norm_backward(E, self.out.height, key.out_eps, kind, parameter)
        self.sum_out_norm = rows.sum_parts(E, E, 2, parameter)
        self.route_backward = rows.route_backward(key.tokens, logits, key.noise, kind)
        self.gelu_backward = rows.gelu_backward(key.routed, self.route_first.width, hidden, False, kind, parameter)
        self.gate_backward = rows.ordered_gate_backward(E, pixel, kind)
        self.add_backward = rows.add_backward(C, in_width, key.eps, False, kind, parameter, key.x, key.out)
        self.sum_norm = rows.sum_parts(C, in_width, 2, parameter, stride=3)
        self.work = Layout(
            conv=((self.conv.work.size,), torch.uint8), out_norm=((rows.parts(E), 2, E), _FP32),
            norm=((rows.parts(in_width), 3, C), _FP32),
        )  # fmt: skip
        compile_together(
            (*(copies.kernel for copies in self.pack), self.norm, self.gelu, self.route, self.conv.forward_kernels[1],
             self.gate, self.out_norm, self.add), device,
        )  # fmt: skip
        self._backward_kernels = (
            self.to_branch, self.out_norm_backward, self.sum_out_norm, self.route_backward, self.gelu_backward,
            self.gate_backward, self.add_backward, self.sum_norm, *self.conv.backward_kernels,
            *(copies.kernel for copies in self.unpack),
        )  # fmt: skip
        self._backward_compiled = False

    def _new(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.key.kind, device=self.key.device)

    def _inputs(
        self, p: StateSpaceTensors, sequence: Tensor, x_proj: Tensor, tokens: Tensor, prompts: Tensor
    ) -> ScanInputs:
        """The scan's inputs, with the prompts added to C."""
        projected = sequence @ x_proj.t()
        add_prompts(projected, tokens, prompts)
        A2, dt_weight = pack_parameters(p.A_logs, p.dt_projs_weight)
        return ScanInputs(sequence, None, projected, A2, dt_weight, p.dt_projs_bias, p.Ds)

    def forward(self, tensors: Tensors, keep: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        key, p = self.key, StateSpaceTensors(*cast(tuple[Tensor, ...], tensors))
        route_first, route_second = self.route_first.new(), self.route_second.new()
        into, out_weight = self.into.new(), self.out.new()
        taps = torch.empty(9, key.inner, dtype=_FP32, device=key.device)
        x_proj = self._new(self.projections, key.inner)
        self._pack(p, route_first, route_second, into, out_weight, taps, x_proj)
        with torch.autocast(key.device.type, enabled=False):
            prompts = p.embedding @ p.basis
            normed = self._normed(p)
            before = normed @ route_first
            logits = self._hidden(before) @ route_second
            tokens = torch.empty(self.rows, dtype=torch.int16, device=key.device)
            noise = prompts.data_ptr() if p.noise is None else p.noise.data_ptr()
            self.route(logits.data_ptr(), noise, tokens.data_ptr())
            order = sorted_rows(tokens.view(key.batch, -1))
            inner = normed @ into
            local = self._new(self.rows, key.inner)
            self.conv.convolve(inner.data_ptr(), taps.data_ptr(), p.conv_bias.data_ptr(), local.data_ptr())
            sequence = self._sequence(inner, local, order)
            scanned, states, _ = scan_forward(self.shape, self._inputs(p, sequence, x_proj, tokens, prompts))
            branch = self._scanned_norm(p, scanned, order) @ out_weight
        out = torch.empty(p.x.shape, dtype=key.out, device=key.device)
        x = p.x.data_ptr()
        self.add(branch.data_ptr(), x, x, x, x, out.data_ptr())
        return out, Kept(
            route_first, route_second, into, out_weight, taps, prompts, x_proj, before, logits, tokens, order, inner,
            local, scanned, states,
        )  # fmt: skip

    # What one pass over the pixels makes is computed again in the backward pass, in place of kept in every layer.

    def _normed(self, p: StateSpaceTensors) -> Tensor:
        """The LayerNorm's result, with ones behind."""
        normed = self._new(self.rows, self.into.height)
        self.norm(p.x.data_ptr(), p.norm_weight.data_ptr(), p.norm_bias.data_ptr(), normed.data_ptr())
        return normed

    def _hidden(self, before: Tensor) -> Tensor:
        """The router's hidden channels, with ones behind."""
        hidden = self._new(self.rows, self.route_second.height)
        self.gelu(before.data_ptr(), before.data_ptr(), hidden.data_ptr())
        return hidden

    def _sequence(self, inner: Tensor, local: Tensor, order: Tensor) -> Tensor:
        """What is scanned, in the order of the tokens."""
        sequence = self._new(self.rows, self.key.inner)
        self.gate(inner.data_ptr(), local.data_ptr(), order.data_ptr(), sequence.data_ptr())
        return sequence

    def _scanned_norm(self, p: StateSpaceTensors, scanned: Tensor, order: Tensor) -> Tensor:
        """The LayerNorm of what was scanned, back in the image's order, with ones behind."""
        result = self._new(self.rows, self.out.height)
        weight, bias = p.out_norm_weight.data_ptr(), p.out_norm_bias.data_ptr()
        self.out_norm(scanned.data_ptr(), order.data_ptr(), weight, bias, result.data_ptr())
        return result

    def _pack(
        self, p: StateSpaceTensors, route_first: Tensor, route_second: Tensor, into: Tensor, out: Tensor, taps: Tensor,
        x_proj: Tensor,
    ) -> None:  # fmt: skip
        routes = (p.route_first_weight, p.route_first_bias, p.route_second_weight, p.route_second_bias)
        self.pack[0](
            [*(t.data_ptr() for t in routes), p.in_weight.data_ptr(), p.in_bias.data_ptr()],
            [*self.route_first.halves(route_first), *self.route_second.halves(route_second), *self.into.halves(into)],
        )
        self.pack[1](
            [t.data_ptr() for t in (p.out_weight, p.out_bias, p.conv_weight, p.x_proj_weight)],
            [*self.out.halves(out), taps.data_ptr(), x_proj.data_ptr()],
        )

    def backward(self, d_out: Tensor, tensors: Tensors, kept: tuple[Tensor, ...]) -> Tensors:
        key, p, k = self.key, StateSpaceTensors(*cast(tuple[Tensor, ...], tensors)), Kept(*kept)
        if not self._backward_compiled:
            compile_together(self._backward_kernels, key.device)
            self._backward_compiled = True
        d = StateSpaceTensors(*(None if t is None else torch.empty_like(t) for t in p))  # type: ignore[arg-type]
        memory, (conv_work, out_parts, parts) = self.work.allocate(key.device)
        d_branch = self._new(self.rows, self.out.width)
        self.to_branch(d_out.data_ptr(), parts, parts, d_branch.data_ptr())
        d_out_weight = self._scanned_norm(p, k.scanned, k.order).t() @ d_branch
        d_scanned = torch.empty_like(k.scanned)
        d_result = d_branch @ k.out.t()
        self.out_norm_backward(
            d_result.data_ptr(), k.scanned.data_ptr(), k.order.data_ptr(), p.out_norm_weight.data_ptr(),
            d_scanned.data_ptr(), out_parts,
        )  # fmt: skip
        on_bias = d.out_norm_bias.data_ptr()
        self.sum_out_norm(out_parts, d.out_norm_weight.data_ptr(), on_bias, on_bias)
        d_sequence, d_logits, d = self._scan_backward(d_scanned, p, k, d)
        d_inner = self._gate_backward(d_sequence, p, k, d, conv_work)
        d_route_second = self._hidden(k.route_before).t() @ d_logits
        d_hidden, d_before = d_logits @ k.route_second.t(), torch.empty_like(k.route_before)
        self.gelu_backward(d_hidden.data_ptr(), k.route_before.data_ptr(), parts, d_before.data_ptr(), parts)
        d_normed = torch.addmm(d_inner @ k.into.t(), d_before, k.route_first.t())
        normed = self._normed(p).t()
        d_into, d_route_first = normed @ d_inner, normed @ d_before
        routes = (d.route_first_weight, d.route_first_bias, d.route_second_weight, d.route_second_bias)
        self.unpack[0](
            [*self.route_first.halves(d_route_first), *self.route_second.halves(d_route_second),
             *self.into.halves(d_into)],
            [*(t.data_ptr() for t in routes), d.in_weight.data_ptr(), d.in_bias.data_ptr()],
        )  # fmt: skip
        self.unpack[1](self.out.halves(d_out_weight), [d.out_weight.data_ptr(), d.out_bias.data_ptr()])
        x = p.x.data_ptr()
        self.add_backward(
            d_normed.data_ptr(), x, p.norm_weight.data_ptr(), d_out.data_ptr(), x, x, d.x.data_ptr(), x, parts
        )
        self.sum_norm(parts, d.norm_weight.data_ptr(), d.norm_bias.data_ptr(), d.norm_bias.data_ptr())
        del memory
        return (d.x, None, *d[2:])

    def _scan_backward(
        self, d_scanned: Tensor, p: StateSpaceTensors, k: Kept, d: StateSpaceTensors
    ) -> tuple[Tensor, Tensor, StateSpaceTensors]:
        """(gradients of the sequence, of the logits, d with those of the scan's parameters)."""
        key = self.key
        sequence = self._sequence(k.inner, k.local, k.order)
        inputs = self._inputs(p, sequence, k.x_proj, k.tokens, k.prompts)
        found = scan_backward(self.shape, d_scanned, inputs, k.states, None, A_is_log=True)
        d_prompts = prompt_gradients(found.projected, k.tokens, k.prompts).to(key.parameter)
        d_policy = found.projected[:, -key.states :] @ k.prompts.t().to(key.kind)
        d_logits = torch.empty_like(k.logits)
        noise = k.tokens.data_ptr() if p.noise is None else p.noise.data_ptr()
        self.route_backward(d_policy.data_ptr(), k.logits.data_ptr(), noise, d_logits.data_ptr())
        gradients = {
            "embedding": d_prompts @ p.basis.t(),
            "basis": p.embedding.t() @ d_prompts,
            "x_proj_weight": found.projected.t() @ sequence,
            "dt_projs_weight": found.dt_weight,
            "dt_projs_bias": found.bias,
            "A_logs": found.A,
            "Ds": found.D,
        }
        shaped = {name: value.to(key.parameter).view(getattr(p, name).shape) for name, value in gradients.items()}
        return found.x.addmm_(found.projected, k.x_proj), d_logits, d._replace(**shaped)

    def _gate_backward(
        self, d_sequence: Tensor, p: StateSpaceTensors, k: Kept, d: StateSpaceTensors, work: int
    ) -> Tensor:
        """The gradient of inner; fills d."""
        d_inner, d_more, d_local = torch.empty_like(k.inner), torch.empty_like(k.inner), torch.empty_like(k.local)
        self.gate_backward(
            d_sequence.data_ptr(), k.inner.data_ptr(), k.local.data_ptr(), k.order.data_ptr(), d_inner.data_ptr(),
            d_local.data_ptr(),
        )  # fmt: skip
        self.conv.gradients(
            d_local.data_ptr(), k.inner.data_ptr(), k.taps.data_ptr(), p.conv_bias.data_ptr(), d_more.data_ptr(),
            d.conv_weight.data_ptr(), d.conv_bias.data_ptr(), [work + offset for offset in self.conv.work.offsets],
        )  # fmt: skip
        return d_inner.add_(d_more)


@functools.lru_cache(maxsize=512)
def state_space_plan(key: StateSpace) -> StateSpacePlan:
    """Kept: a plan takes longer than the pass that it is for."""
    return StateSpacePlan(key)
