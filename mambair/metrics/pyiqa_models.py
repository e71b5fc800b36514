"""pyiqa's models of metrics (the extra `metrics`), built once each.

pyiqa's licence, PolyForm Noncommercial 1.0.0, and those of the models' weights allow research and other uses that are
not commercial.
"""

import functools
import threading
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mambair.errors import UserError
from mambair.imaging.tensors import image_to_tensor

_building = threading.Lock()  # images are scored in several threads, and one model is enough


@functools.cache
def build_model(name: str, metric: str) -> Callable[..., Tensor]:
    """pyiqa's model called `name`, behind the option files' `metric`; called with (1, 3, H, W) in [0, 1]."""
    try:
        import pyiqa
    except ImportError as error:
        raise UserError(
            f"val.metrics: {metric} needs pyiqa (licensed for noncommercial use); install it with: "
            "pip install 'mambair[metrics]'"
        ) from error
    try:
        return pyiqa.create_metric(name, device=torch.device("cpu"))
    except OSError as error:
        raise UserError(
            f"val.metrics: pyiqa cannot load {name}'s weights ({error}); let it download them once with a network "
            "at hand, or leave the metric out"
        ) from error


def judge(name: str, metric: str, *images: np.ndarray) -> float:
    """What the model says of uint8 images (H, W, 3) or (H, W, 1): one, or one and its reference."""
    with _building:
        model = build_model(name, metric)
    tensors = [image_to_tensor(image).expand(3, -1, -1).unsqueeze(0) for image in images]
    with torch.inference_mode():
        return float(model(*tensors))
