"""The state-space operators and their backends, and the depthwise convolution."""

from mambair.ops.backends import available_backends, backend_names
from mambair.ops.depthwise import depthwise_conv
from mambair.ops.selective_scan import selective_scan
from mambair.ops.ss2d import ss2d_scan

__all__ = ["available_backends", "backend_names", "depthwise_conv", "selective_scan", "ss2d_scan"]
