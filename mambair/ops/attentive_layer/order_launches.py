"""Grids and tiles of the attentive state-space module's kernels; triton_order.py has the legend."""

import torch

from mambair.ops.attentive_layer import triton_order as kernels
from mambair.ops.attentive_layer.launches import LayerRows
from mambair.ops.launching import PreparedKernel
from mambair.ops.rssb.rows import Dtype

_FP32, _TOKEN, _ORDER = torch.float32, torch.int16, torch.int64


class OrderRows(LayerRows):
    """All pixels, and the launches of the kernels that know their order."""

    def route(self, tokens: int, width: int, noise: bool, kind: Dtype) -> PreparedKernel:
        """logits, noise, tokens."""
        constants = {"T": tokens, "TP": width, "NOISE": noise}
        return self.each(kernels.route_kernel, (kind, _FP32, _TOKEN), constants, width)

    def route_backward(self, tokens: int, width: int, noise: bool, kind: Dtype) -> PreparedKernel:
        """d_policy, logits, noise, d_logits."""
        constants = {"T": tokens, "TP": width, "NOISE": noise}
        return self.each(kernels.route_backward_kernel, (kind, kind, _FP32, kind), constants, width)

    def ordered_gate(self, inner: int, stride: int, kind: Dtype) -> PreparedKernel:
        """inner, local, order, sorted."""
        return self.each(kernels.gate_kernel, (kind, kind, _ORDER, kind), {"E": inner, "EP": stride}, inner)

    def ordered_gate_backward(self, inner: int, stride: int, kind: Dtype) -> PreparedKernel:
        """d_sorted, inner, local, order, d_inner, d_local."""
        types = (kind, kind, kind, _ORDER, kind, kind)
        return self.each(kernels.gate_backward_kernel, types, {"E": inner, "EP": stride}, stride)

    def ordered_norm(self, inner: int, width: int, eps: float, kind: Dtype, parameter: Dtype) -> PreparedKernel:
        """sorted, order, weight, bias, y."""
        types = (kind, _ORDER, parameter, parameter, kind)
        return self.each(kernels.norm_kernel, types, {"E": inner, "YP": width, "EPS": eps}, width)

    def ordered_norm_backward(
        self, inner: int, width: int, eps: float, kind: Dtype, parameter: Dtype
    ) -> PreparedKernel:
        """d_y, sorted, order, weight, d_sorted, parts."""
        types = (kind, kind, _ORDER, parameter, kind, _FP32)
        return self.summing(kernels.norm_backward_kernel, types, {"E": inner, "YP": width, "EPS": eps}, inner)
