"""The 2-D selective scan (SS2D): one scan per direction over an image, and their sum."""

from mambair.ops.ss2d.interface import ss2d_scan

__all__ = ["ss2d_scan"]
