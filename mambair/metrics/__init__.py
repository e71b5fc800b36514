"""Image quality metrics; importing this package registers them in METRICS."""

import mambair.metrics.no_reference  # noqa: F401  (registers the metrics without ground truth)
from mambair.metrics.psnr_ssim import calculate_psnr, calculate_ssim

__all__ = ["calculate_psnr", "calculate_ssim"]
