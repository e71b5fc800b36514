"""A metric of one's own: of a restored image and its ground truth, uint8 RGB (H, W, 3)."""

import numpy as np

from mambair.registry import METRICS


@METRICS.register(higher_is_better=False)
def my_metric(image: np.ndarray, reference: np.ndarray, worst: float = 0.01) -> float:
    """The mean error, in grey levels, of the worst part of the pixels."""
    errors = np.abs(image.astype(float) - reference).mean(axis=2).ravel()
    return float(np.sort(errors)[-max(1, round(worst * errors.size)) :].mean())
