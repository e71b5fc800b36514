"""The first half of a residual block as one operator: x skip + keep VSSM(LayerNorm(x)).

Shapes: B images, H x W pixels, `rows` of them in all, C channels, E inner channels, K directions, N states, R rank of
delta, P = R + 2N. C, E and 2E are padded to what matrix products like.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mambair.ops.copies import Copies, cropped_matrix, padded_matrix, transposed
from mambair.ops.depthwise.triton_launch import Convolution, Image, convolution_plan
from mambair.ops.direct import without_autocast
from mambair.ops.launching import Layout, Together, compile_together
from mambair.ops.rssb.parameters import ScanHalfParameters
from mambair.ops.rssb.rows import MANY_PROGRAMS, Rows, padded
from mambair.ops.ss2d.triton_launch import ScanAddresses, ScanTypes, forward_plan, pack_parameters_plan
from mambair.ops.ss2d.triton_launch_backward import GradientAddresses, backward_plan
from mambair.ops.ss2d.triton_plan import ScanShape

_FP32 = torch.float32


@dataclass(frozen=True)
class ScanHalf:
    """What the operator is applied to.

    kind: the type that products run in.  keep: of the factor for each image, None without it.  gradients: whether a
    backward pass may follow.
    """

    batch: int
    height: int
    width: int
    channels: int
    inner: int
    states: int
    rank: int
    directions: int
    x: torch.dtype
    kind: torch.dtype
    parameter: torch.dtype
    keep: torch.dtype | None
    gradients: bool
    norm_eps: float
    out_norm_eps: float
    device: torch.device

    @property
    def out(self) -> torch.dtype:
        """The result's type."""
        return functools.reduce(torch.promote_types, (self.x, self.parameter, self.kind))


class ScanHalfPlan:
    """The launches of the operator, forward and backward."""

    def __init__(self, key: ScanHalf) -> None:
        self.key = key
        C, E, kind, parameter, device = key.channels, key.inner, key.kind, key.parameter, key.device
        self.width, self.inner_width, self.both_width = (padded(size, kind) for size in (C, E, 2 * E))
        self.projections = key.directions * (key.rank + 2 * key.states)
        rows = Rows(key.batch, key.height * key.width, device)
        self.rows = rows.count
        shape = ScanShape(
            batch=key.batch, height=key.height, width=key.width, channels=E, groups=2 if key.directions == 4 else 1,
            senses=1 if key.directions == 1 else 2, states=key.states, rank=key.rank, image=True,
        )  # fmt: skip
        types = ScanTypes(kind, None, kind, parameter, parameter)
        self.scan = forward_plan(shape, types, device)
        self.scan_backward = backward_plan(shape, types, True, False, device)
        pixel = self.both_width
        image = Image(
            (key.batch, key.height, key.width, E), (key.height * key.width * pixel, key.width * pixel, pixel), kind
        )
        self.conv = convolution_plan(Convolution(image, parameter, parameter, 1, True, pixel, E), device)
        self.pack_scan = pack_parameters_plan(
            key.directions, E, key.states, key.rank, parameter, parameter, device
        )  # fmt: skip
        self.pack = Copies(
            [
                padded_matrix(2 * E, C, self.both_width, self.width, parameter, kind),
                padded_matrix(C, E, self.width, self.inner_width, parameter, kind),
                padded_matrix(self.projections, E, self.projections, E, parameter, kind),
                transposed(E, 9, parameter, _FP32),
            ],
            device,
        )
        self.unpack = Copies(
            [
                cropped_matrix(2 * E, C, self.width, kind, parameter),
                cropped_matrix(C, E, self.inner_width, kind, parameter),
                cropped_matrix(self.projections, E, E, kind, parameter),
            ],
            device,
        )
        z_width = self.both_width - E
        scale = "none" if key.keep is None else "image"
        self.norm = rows.norm(C, self.width, key.norm_eps, False, key.x, parameter, kind)
        self.gate = rows.gate(
            E, self.inner_width, self.both_width, self.scan.parts_count, key.out_norm_eps, kind, parameter,
            key.gradients,
        )  # fmt: skip
        self.add = rows.add_skip(C, self.width, scale, False, kind, key.keep or _FP32, parameter, key.x, key.out)
        self.to_branch = rows.to_branch(C, self.width, scale, key.out, key.keep or _FP32, kind)
        self.gate_backward = rows.gate_backward(
            E, self.inner_width, self.both_width, z_width, key.out_norm_eps, kind, parameter
        )
        self.sum_gate = rows.sum_parts(E, max(self.inner_width, z_width), 2, parameter, programs=MANY_PROGRAMS)
        self.norm_backward = rows.norm_backward(C, self.width, key.norm_eps, kind, key.x, parameter, key.out)
        self.sum_norm = rows.sum_parts(C, self.width, 3, parameter, programs=MANY_PROGRAMS)
        # The packed weights of convolution and scan lie together, as do the scan's parts and its other work.
        self.small = Layout(
            conv=((9, E), _FP32), A2=((self.pack_scan.layout.offsets[1],), torch.uint8),
            dt_weight=((key.directions, key.rank, E), _FP32),
        )  # fmt: skip
        self.forward_work = Layout(
            scan=((self.scan.work.size,), torch.uint8), parts=((self.scan.parts_count, self.rows, E), kind)
        )
        gate_parts = rows.parts(max(self.inner_width, z_width), MANY_PROGRAMS), 2, E
        self.backward_work = Layout(
            scan=((self.scan_backward.work.size,), torch.uint8),
            dx_parts=((self.scan_backward.dx_parts, self.rows, E), kind),
            conv=((self.conv.work.size,), torch.uint8),
            gate=(gate_parts, _FP32),
            norm=((rows.parts(self.width, MANY_PROGRAMS), 3, C), _FP32),
        )
        self._forward_kernels = (
            self.pack.kernel, self.pack_scan.pack, self.norm, self.conv.forward_kernels[1], *self.scan.kernels[:-1],
            self.gate, self.add,
        )  # fmt: skip
        self._backward_kernels = (
            self.to_branch, self.gate_backward, self.sum_gate, *self.scan_backward.kernels, *self.conv.backward_kernels,
            self.unpack.kernel, self.norm_backward, self.sum_norm,
        )  # fmt: skip
        compile_together(self._forward_kernels, device)
        self._backward_compiled = False
        self._gradients: Together | None = None

    def forward(self, x: Tensor, keep: Tensor | None, p: ScanHalfParameters) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(the result; what the backward pass needs besides the arguments)."""
        key, rows, E = self.key, self.rows, self.key.inner

        def new(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=key.kind, device=key.device)

        in_proj, out_proj = new(self.both_width, self.width), new(self.width, self.inner_width)
        x_proj = new(self.projections, E)
        small, (conv, A2, dt_weight) = self.small.allocate(key.device)
        self.pack(
            [p.in_proj.data_ptr(), p.out_proj.data_ptr(), p.x_proj_weight.data_ptr(), p.conv_weight.data_ptr()],
            [in_proj.data_ptr(), out_proj.data_ptr(), x_proj.data_ptr(), conv],
        )
        self.pack_scan.pack(p.A_logs.data_ptr(), p.dt_projs_weight.data_ptr(), A2, dt_weight)
        normed = new(rows, self.width)
        self.norm(x.data_ptr(), p.norm_weight.data_ptr(), p.norm_bias.data_ptr(), normed.data_ptr())
        both = torch.mm(normed, in_proj.t())  # (rows, 2E): what is scanned, and the gate
        scanned = new(rows, E)
        self.conv.convolve(both.data_ptr(), conv, p.conv_bias.data_ptr(), scanned.data_ptr())
        projected = torch.mm(scanned, x_proj.t())
        kept = torch.empty(self.scan.kept.size, dtype=torch.uint8, device=key.device)
        memory, (work, parts) = self.forward_work.allocate(key.device)
        at = ScanAddresses(
            scanned.data_ptr(), 0, projected.data_ptr(), A2, dt_weight, p.dt_projs_bias.data_ptr(), p.Ds.data_ptr()
        )
        self.scan(at, [work + offset for offset in self.scan.work.offsets], kept, work, parts)
        gated = new(rows, self.inner_width)
        y = new(rows, E) if key.gradients else gated
        z = both.data_ptr() + E * key.kind.itemsize
        self.gate(
            parts, z, p.out_norm_weight.data_ptr(), p.out_norm_bias.data_ptr(), y.data_ptr(), gated.data_ptr()
        )  # fmt: skip
        del memory
        branch = torch.mm(gated, out_proj.t())
        out = torch.empty(x.shape, dtype=key.out, device=key.device)
        skip = p.skip_scale.data_ptr()
        factor = skip if keep is None else keep.data_ptr()
        self.add(branch.data_ptr(), factor, skip, x.data_ptr(), skip, out.data_ptr())
        return out, (normed, both, scanned, projected, y, gated, kept, in_proj, out_proj, x_proj, small)

    def backward(
        self, d_out: Tensor, x: Tensor, keep: Tensor | None, p: ScanHalfParameters, kept: tuple[Tensor, ...]
    ) -> tuple[Tensor, ScanHalfParameters]:
        """Gradients of x and of the parameters."""
        key, rows, E = self.key, self.rows, self.key.inner
        if not self._backward_compiled:
            compile_together(self._backward_kernels, key.device)
            self._backward_compiled = True
        normed, both, scanned, projected, y, gated, states, in_proj, out_proj, x_proj, small = kept

        def new(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=key.kind, device=key.device)

        if self._gradients is None:
            self._gradients = Together([parameter.shape for parameter in p], key.parameter, key.device)
        d = ScanHalfParameters(*self._gradients.empty())
        memory, (scan_work, dx_parts, conv_work, gate_parts, norm_parts) = self.backward_work.allocate(key.device)
        d_branch = new(rows, self.width)
        factor = d_out.data_ptr() if keep is None else keep.data_ptr()
        self.to_branch(d_out.data_ptr(), factor, factor, d_branch.data_ptr())
        d_gated = torch.mm(d_branch, out_proj)
        d_out_proj = torch.mm(d_branch.t(), gated)
        d_both, d_y = new(rows, self.both_width), new(rows, E)
        offset = E * key.kind.itemsize
        self.gate_backward(
            d_gated.data_ptr(), y.data_ptr(), both.data_ptr() + offset, p.out_norm_weight.data_ptr(),
            p.out_norm_bias.data_ptr(), d_y.data_ptr(), d_both.data_ptr() + offset, gate_parts,
        )  # fmt: skip
        on_weight = d.out_norm_weight.data_ptr()
        self.sum_gate(gate_parts, on_weight, d.out_norm_bias.data_ptr(), on_weight)
        d_scanned, d_projected = self._backward_scan(d_y, scanned, projected, states, small, p, d, scan_work, dx_parts)
        torch.addmm(d_scanned, d_projected, x_proj, out=d_scanned)
        d_x_proj = torch.mm(d_projected.t(), scanned)
        conv = small.data_ptr() + self.small.offsets[0]
        self.conv.gradients(
            d_scanned.data_ptr(), both.data_ptr(), conv, p.conv_bias.data_ptr(), d_both.data_ptr(),
            d.conv_weight.data_ptr(), d.conv_bias.data_ptr(), [conv_work + o for o in self.conv.work.offsets],
        )  # fmt: skip
        d_normed = torch.mm(d_both, in_proj)
        d_in_proj = torch.mm(d_both.t(), normed)
        self.unpack(
            [d_in_proj.data_ptr(), d_out_proj.data_ptr(), d_x_proj.data_ptr()],
            [d.in_proj.data_ptr(), d.out_proj.data_ptr(), d.x_proj_weight.data_ptr()],
        )
        d_x = torch.empty_like(x)
        self.norm_backward(
            d_normed.data_ptr(), x.data_ptr(), p.norm_weight.data_ptr(), d_out.data_ptr(), p.skip_scale.data_ptr(),
            d_x.data_ptr(), norm_parts,
        )  # fmt: skip
        self.sum_norm(norm_parts, d.norm_weight.data_ptr(), d.norm_bias.data_ptr(), d.skip_scale.data_ptr())
        del memory
        return d_x, d

    def _backward_scan(
        self, d_y: Tensor, scanned: Tensor, projected: Tensor, states: Tensor, small: Tensor, p: ScanHalfParameters,
        d: ScanHalfParameters, work: int, dx_parts: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """(gradient of what is scanned but for its way through projected, gradient of projected); fills d."""
        d_scanned, d_projected = torch.empty_like(scanned), torch.empty_like(projected)
        wanted = (d.A_logs, d.dt_projs_weight, d.dt_projs_bias, d.Ds)
        single = self.key.parameter == _FP32
        A_logs, dt, bias, D = wanted if single else [torch.empty_like(tensor, dtype=_FP32) for tensor in wanted]
        _, A2, dt_weight = (small.data_ptr() + offset for offset in self.small.offsets)
        at = ScanAddresses(
            scanned.data_ptr(), 0, projected.data_ptr(), A2, dt_weight, p.dt_projs_bias.data_ptr(), p.Ds.data_ptr()
        )
        dx = d_scanned.data_ptr()
        to = GradientAddresses(
            dx if self.scan_backward.dx_parts == 1 else dx_parts, 0, d_projected.data_ptr(), A_logs.data_ptr(),
            dt.data_ptr(), bias.data_ptr(), D.data_ptr(),
        )  # fmt: skip
        self.scan_backward(at, d_y.data_ptr(), states.data_ptr(), 0, to, work, dx)
        if not single:
            for tensor, gradient in zip(wanted, (A_logs, dt, bias, D), strict=True):
                tensor.copy_(gradient)
        return d_scanned, d_projected


@functools.lru_cache(maxsize=512)
def scan_half_plan(key: ScanHalf) -> ScanHalfPlan:
    """Kept: a plan takes longer than the pass that it is for."""
    return ScanHalfPlan(key)


class ScanHalfFunction(torch.autograd.Function):
    """The operator with gradients: plan, x (B, H, W, C), keep (B, ...) or None, parameters -> (B, H, W, C)."""

    @staticmethod
    def forward(ctx: Any, plan: ScanHalfPlan, x: Tensor, keep: Tensor | None, *parameters: Tensor) -> Tensor:
        out, kept = plan.forward(x, keep, ScanHalfParameters(*parameters))
        ctx.plan = plan
        ctx.save_for_backward(x, keep, *parameters, *kept)
        return out

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, keep, *rest = ctx.saved_tensors
        count = len(ScanHalfParameters._fields)
        parameters, kept = ScanHalfParameters(*rest[:count]), tuple(rest[count:])
        with torch.cuda.device_of(x):
            d_x, found = ctx.plan.backward(d_out.contiguous(), x, keep, parameters, kept)
        needed = ctx.needs_input_grad
        return (
            None,
            d_x if needed[1] else None,
            None,
            *(gradient if need else None for gradient, need in zip(found, needed[3:], strict=True)),
        )
