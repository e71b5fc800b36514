"""Metrics that judge an image without ground truth, computed by pyiqa (the extra `metrics`)."""

import numpy as np

from mambair.metrics.pyiqa_models import judge
from mambair.registry import METRICS


@METRICS.register(higher_is_better=False)
def calculate_niqe(image: np.ndarray) -> float:
    """NIQE (Mittal et al., 2013) of a uint8 image (H, W, 3) or (H, W, 1); lower is better."""
    return judge("niqe", "calculate_niqe", image)


@METRICS.register(higher_is_better=False)
def calculate_brisque(image: np.ndarray) -> float:
    """BRISQUE (Mittal et al., 2012) of a uint8 image (H, W, 3) or (H, W, 1); lower is better."""
    return judge("brisque", "calculate_brisque", image)


@METRICS.register(higher_is_better=True)
def calculate_musiq(image: np.ndarray) -> float:
    """MUSIQ (Ke et al., 2021) of a uint8 image (H, W, 3) or (H, W, 1); higher is better."""
    return judge("musiq", "calculate_musiq", image)


@METRICS.register(higher_is_better=True)
def calculate_maniqa(image: np.ndarray) -> float:
    """MANIQA (Yang et al., 2022) of a uint8 image (H, W, 3) or (H, W, 1); higher is better."""
    return judge("maniqa", "calculate_maniqa", image)


@METRICS.register(higher_is_better=True)
def calculate_clipiqa(image: np.ndarray) -> float:
    """CLIP-IQA (Wang et al., 2023) of a uint8 image (H, W, 3) or (H, W, 1); higher is better."""
    return judge("clipiqa", "calculate_clipiqa", image)
