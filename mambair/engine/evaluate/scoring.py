"""Metrics of single images, and their means over a data set."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

import mambair.metrics  # noqa: F401  (registers the metrics)
from mambair.errors import UserError
from mambair.registry import METRICS


@dataclass(frozen=True)
class Metric:
    """A metric with the settings of an option file."""

    name: str
    """What tables call it."""
    function: Callable[..., float]
    """Called with uint8 images (H, W, C): (image, reference), or (image) alone."""
    needs_reference: bool
    higher_is_better: bool

    def is_better(self, value: float, other: float) -> bool:
        """Whether `value` beats `other`."""
        return value > other if self.higher_is_better else value < other

    def __call__(self, image: np.ndarray, reference: np.ndarray | None) -> float:
        """The metric of an image; `reference` is its ground truth."""
        return float(self.function(image, reference) if self.needs_reference else self.function(image))


def build_metrics(blocks: Mapping[str, Mapping[str, Any]], where: Callable[[str], str]) -> list[Metric]:
    """The metrics of a `val.metrics` section; `where` names the file and line of a key path for errors."""
    metrics = []
    for name, block in blocks.items():
        place = where(f"val.metrics.{name}")
        keywords = METRICS.keywords(block, place)
        function = METRICS.get(block["type"], place)
        metrics.append(
            Metric(
                name,
                partial(function, **keywords),
                needs_reference="reference" in inspect.signature(function).parameters,
                higher_is_better=function.higher_is_better,
            )
        )
    return metrics


@dataclass
class Scores:
    """Metrics of the images of one data set, in its order."""

    images: dict[str, dict[str, float]] = field(default_factory=dict)

    def means(self) -> dict[str, float]:
        """Mean of each metric over the images, summed in their order: the same to the last digit on any machine."""
        names = list(dict.fromkeys(name for metrics in self.images.values() for name in metrics))
        values = {name: [metrics[name] for metrics in self.images.values() if name in metrics] for name in names}
        return {name: sum(column) / len(column) for name, column in values.items()}

    def as_json(self) -> dict[str, Any]:
        """{"psnr": mean, ..., "images": {name: {"psnr": value, ...}}}."""
        return {**self.means(), "images": self.images}


def score(metrics: Sequence[Metric], image: np.ndarray, reference: np.ndarray | None, name: str) -> dict[str, float]:
    """The metrics of one image; those that compare with a ground truth are left out where there is none.

    Raises UserError that names the image where it cannot be compared.
    """
    values = {}
    for metric in metrics:
        if metric.needs_reference and reference is None:
            continue
        try:
            values[metric.name] = metric(image, reference)
        except UserError as error:
            raise UserError(f"{name}: {metric.name}: {error}") from error
    return values
