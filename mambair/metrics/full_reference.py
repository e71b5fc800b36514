"""Learned metrics that compare an image with its ground truth, computed by pyiqa (the extra `metrics`).

Images are uint8, (H, W, 3) RGB or (H, W, 1) gray, of one size; `crop_border` pixels are left out on each side.
"""

import numpy as np

from mambair.errors import UserError
from mambair.metrics.psnr_ssim import cropped_pair
from mambair.metrics.pyiqa_models import judge
from mambair.registry import METRICS

LPIPS_MODELS = {"alex": "lpips", "vgg": "lpips-vgg"}


@METRICS.register(higher_is_better=False)
def calculate_lpips(image: np.ndarray, reference: np.ndarray, crop_border: int = 0, net: str = "alex") -> float:
    """LPIPS v0.1 (Zhang et al., 2018), 0 for equal images; lower is better.

    `net`: alex, which comparisons of results use, or vgg, which losses use.
    """
    if net not in LPIPS_MODELS:
        raise UserError(f"calculate_lpips: net '{net}' is not known; use alex or vgg")
    return judge(LPIPS_MODELS[net], "calculate_lpips", *cropped_pair(image, reference, crop_border))


@METRICS.register(higher_is_better=False)
def calculate_dists(image: np.ndarray, reference: np.ndarray, crop_border: int = 0) -> float:
    """DISTS (Ding et al., 2020), 0 for equal images; lower is better."""
    return judge("dists", "calculate_dists", *cropped_pair(image, reference, crop_border))


@METRICS.register(higher_is_better=True)
def calculate_topiq(image: np.ndarray, reference: np.ndarray, crop_border: int = 0) -> float:
    """TOPIQ with reference (Chen et al., 2024), trained on KADID-10k; higher is better."""
    return judge("topiq_fr", "calculate_topiq", *cropped_pair(image, reference, crop_border))
