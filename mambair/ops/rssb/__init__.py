"""The two halves of a residual state-space block (RSSB), each as one operator."""

from mambair.ops.rssb.interface import local_half, scan_half

__all__ = ["local_half", "scan_half"]
