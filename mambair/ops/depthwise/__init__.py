"""Depthwise 3x3 convolution of channels-last images, with SiLU behind it if asked for."""

from mambair.ops.depthwise.interface import depthwise_conv

__all__ = ["depthwise_conv"]
