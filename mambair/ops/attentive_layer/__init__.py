"""The parts of MambaIRv2's attentive layer, each with its LayerNorm and skip connection as one operator."""

from mambair.ops.attentive_layer.interface import attention_part, feed_forward_part, state_space_part

__all__ = ["attention_part", "feed_forward_part", "state_space_part"]
