"""Metrics that judge an image without ground truth, computed by pyiqa (the extra `metrics`)."""

import functools
import threading
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mambair.errors import UserError
from mambair.imaging.tensors import image_to_tensor
from mambair.registry import METRICS

_building = threading.Lock()  # images are scored in several threads, and one model is enough


@functools.cache
def _build(name: str) -> Callable[[Tensor], Tensor]:
    """pyiqa's model of a metric, called with (1, 3, H, W) in [0, 1]."""
    try:
        import pyiqa
    except ImportError as error:
        raise UserError(
            f"val.metrics: calculate_{name} needs pyiqa; install it with: pip install mambair[metrics]"
        ) from error
    try:
        return pyiqa.create_metric(name, device=torch.device("cpu"))
    except OSError as error:
        raise UserError(
            f"val.metrics: pyiqa cannot load {name}'s weights ({error}); let it download them once with a network "
            "at hand, or leave the metric out"
        ) from error


def _score(name: str, image: np.ndarray) -> float:
    with _building:
        model = _build(name)
    tensor = image_to_tensor(image).expand(3, -1, -1).unsqueeze(0)
    with torch.inference_mode():
        return float(model(tensor))


@METRICS.register()
def calculate_niqe(image: np.ndarray) -> float:
    """NIQE (Mittal et al., 2013) of a uint8 image (H, W, 3) or (H, W, 1); lower is better."""
    return _score("niqe", image)


@METRICS.register()
def calculate_brisque(image: np.ndarray) -> float:
    """BRISQUE (Mittal et al., 2012) of a uint8 image (H, W, 3) or (H, W, 1); lower is better."""
    return _score("brisque", image)


@METRICS.register()
def calculate_musiq(image: np.ndarray) -> float:
    """MUSIQ (Ke et al., 2021) of a uint8 image (H, W, 3) or (H, W, 1); higher is better."""
    return _score("musiq", image)


@METRICS.register()
def calculate_maniqa(image: np.ndarray) -> float:
    """MANIQA (Yang et al., 2022) of a uint8 image (H, W, 3) or (H, W, 1); higher is better."""
    return _score("maniqa", image)


@METRICS.register()
def calculate_clipiqa(image: np.ndarray) -> float:
    """CLIP-IQA (Wang et al., 2023) of a uint8 image (H, W, 3) or (H, W, 1); higher is better."""
    return _score("clipiqa", image)


for _metric in (calculate_niqe, calculate_brisque):
    _metric.higher_is_better = False
for _metric in (calculate_musiq, calculate_maniqa, calculate_clipiqa):
    _metric.higher_is_better = True
