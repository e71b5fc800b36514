"""Image quality metrics; importing this package registers them in METRICS."""

from mambair.metrics.full_reference import calculate_dists, calculate_lpips, calculate_topiq
from mambair.metrics.no_reference import (
    calculate_brisque,
    calculate_clipiqa,
    calculate_maniqa,
    calculate_musiq,
    calculate_niqe,
)
from mambair.metrics.psnr_ssim import calculate_psnr, calculate_ssim

__all__ = [
    "calculate_brisque",
    "calculate_clipiqa",
    "calculate_dists",
    "calculate_lpips",
    "calculate_maniqa",
    "calculate_musiq",
    "calculate_niqe",
    "calculate_psnr",
    "calculate_ssim",
    "calculate_topiq",
]
