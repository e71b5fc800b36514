"""Grids and tiles of the kernels that go pixel by pixel; triton_kernels.py has the legend."""

import torch

from mambair.ops.attentive_layer import triton_kernels as kernels
from mambair.ops.launching import PreparedKernel
from mambair.ops.rssb.rows import Dtype, Rows

_FP32 = torch.float32


class LayerRows(Rows):
    """All pixels of an attentive layer, and the launches of its own kernels."""

    def add(
        self, channels: int, width: int, bias: bool, other: bool, kind: Dtype, parameter: Dtype, x: Dtype, out: Dtype
    ) -> PreparedKernel:
        """branch, bias, x, other, scale, out."""
        constants = {"C": channels, "CP": width, "BIAS": bias, "OTHER": other}
        return self.each(kernels.add_kernel, (kind, parameter, x, x, parameter, out), constants, max(width, channels))

    def add_backward(
        self, channels: int, width: int, eps: float, other: bool, kind: Dtype, parameter: Dtype, x: Dtype, out: Dtype
    ) -> PreparedKernel:
        """d_y, x, weight, d_out, other, scale, d_x, d_other, parts."""
        constants = {"C": channels, "CP": width, "EPS": eps, "OTHER": other}
        types = (kind, x, parameter, out, x, parameter, x, x, _FP32)
        return self.summing(kernels.add_backward_kernel, types, constants, width)

    def gate_norm(self, half: int, stride: int, eps: float, kind: Dtype, parameter: Dtype) -> PreparedKernel:
        """u, weight, bias, h."""
        constants = {"G": half, "US": stride, "EPS": eps}
        return self.each(kernels.gate_norm_kernel, (kind, parameter, parameter, kind), constants, half)

    def gate_norm_backward(self, half: int, stride: int, eps: float, kind: Dtype, parameter: Dtype) -> PreparedKernel:
        """d_h, u, weight, d_u, parts."""
        constants = {"G": half, "US": stride, "EPS": eps}
        types = (kind, kind, parameter, kind, _FP32)
        return self.summing(kernels.gate_norm_backward_kernel, types, constants, stride - half)

    def gate_product(self, half: int, stride: int, width: int, kind: Dtype) -> PreparedKernel:
        """u, local, y."""
        constants = {"G": half, "US": stride, "CP": width}
        return self.each(kernels.gate_product_kernel, (kind,) * 3, constants, width)

    def gate_product_backward(self, half: int, stride: int, width: int, kind: Dtype) -> PreparedKernel:
        """d_y, u, local, d_u, d_local."""
        constants = {"G": half, "US": stride, "CP": width}
        return self.each(kernels.gate_product_backward_kernel, (kind,) * 5, constants, half)

    def local_sum(self, hidden: int, stride: int, width: int, kind: Dtype) -> PreparedKernel:
        """g, local, y."""
        constants = {"F": hidden, "GS": stride, "CP": width}
        return self.each(kernels.local_sum_kernel, (kind,) * 3, constants, width)

    def local_again(self, hidden: int, stride: int, width: int, kind: Dtype) -> PreparedKernel:
        """u, local, g, y."""
        constants = {"F": hidden, "US": stride, "CP": width}
        return self.each(kernels.local_again_kernel, (kind,) * 4, constants, max(stride, width))

    def local_sum_backward(
        self, hidden: int, stride: int, to_stride: int, width: int, more: bool, kind: Dtype
    ) -> PreparedKernel:
        """d_y, d_more, u, d_u."""
        constants = {"F": hidden, "US": stride, "DS": to_stride, "CP": width, "MORE": more}
        return self.each(kernels.local_sum_backward_kernel, (kind,) * 4, constants, max(to_stride, hidden))
