"""The 1-D selective scan of Mamba."""

from mambair.ops.selective_scan.interface import selective_scan

__all__ = ["selective_scan"]
