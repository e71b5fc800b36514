"""Image quality metrics; importing this package registers them in METRICS."""

from mambair.metrics.psnr_ssim import calculate_psnr, calculate_ssim

__all__ = ["calculate_psnr", "calculate_ssim"]
