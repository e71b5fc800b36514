"""LayerNorm over the last dimension, in one kernel each way."""

from mambair.ops.layer_norm.interface import layer_norm

__all__ = ["layer_norm"]
