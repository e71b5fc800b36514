"""The state-space operators and their backends, the depthwise convolution, LayerNorm and window attention."""

from mambair.ops.attentive_scan import attentive_scan
from mambair.ops.backends import available_backends, backend_names, chosen_backend
from mambair.ops.depthwise import depthwise_conv
from mambair.ops.layer_norm import layer_norm
from mambair.ops.selective_scan import selective_scan
from mambair.ops.ss2d import ss2d_scan
from mambair.ops.window_attention import window_attention

__all__ = [
    "attentive_scan",
    "available_backends",
    "backend_names",
    "chosen_backend",
    "depthwise_conv",
    "layer_norm",
    "selective_scan",
    "ss2d_scan",
    "window_attention",
]
