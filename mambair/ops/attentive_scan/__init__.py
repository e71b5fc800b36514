"""The attentive selective scan of MambaIRv2: one scan over the places sorted by token, with prompts added to C."""

from mambair.ops.attentive_scan.interface import attentive_scan

__all__ = ["attentive_scan"]
