"""Attention inside the windows of an image, with learned biases of relative positions and shifted windows."""

from mambair.ops.window_attention.interface import window_attention

__all__ = ["window_attention"]
