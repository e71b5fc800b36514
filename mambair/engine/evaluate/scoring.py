"""Metrics of single images, and their means over a data set."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

import mambair.metrics  # noqa: F401  (registers the metrics)
from mambair.errors import UserError
from mambair.registry import METRICS, is_foreign
from mambair.runtime.foreign_code import foreign_code


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
        function = METRICS.get(block["type"], place)
        direction = _direction(function, block, place)
        own = {key: value for key, value in block.items() if not (key == "better" and direction)}
        keywords = METRICS.keywords(own, place, given=(*OURS, *BASICSRS))
        parameters = inspect.signature(function).parameters
        call = partial(function, **keywords)
        metrics.append(
            Metric(
                name,
                partial(call_as_basicsr, call) if BASICSRS[0] in parameters else call,
                needs_reference=any(key in parameters for key in (OURS[1], BASICSRS[1])),
                higher_is_better=direction.get("higher", getattr(function, "higher_is_better", True)),
            )
        )
    return metrics


OURS = ("image", "reference")
"""What the functions call the restored image and its ground truth."""
BASICSRS = ("img", "img2")
"""The same in BasicSR, whose images are BGR."""


def call_as_basicsr(function: Callable[..., float], image: np.ndarray, reference: np.ndarray | None = None) -> float:
    """Call a metric with BasicSR's arguments: uint8 images (H, W, C), BGR."""
    images = {BASICSRS[0]: image} if reference is None else {BASICSRS[0]: image, BASICSRS[1]: reference}
    return function(**{key: np.ascontiguousarray(value[:, :, ::-1]) for key, value in images.items()})


def _direction(function: Any, block: Mapping[str, Any], place: str) -> dict[str, bool]:
    """{"higher": ...} where the option file must say which way is better; {} where the metric does itself.

    Raises UserError where neither does.
    """
    if isinstance(getattr(function, "higher_is_better", None), bool):
        return {}
    if block.get("better") not in ("higher", "lower"):
        raise UserError(
            f"{place}: it is not known which way {block['type']} is better; write better: higher or better: lower, or "
            "register it with METRICS.register(higher_is_better=...)"
        )
    return {"higher": block["better"] == "higher"}


TRIAL_SIDE = 128
"""Pixels of the image that metrics are tried with: learned ones need some."""


def try_metrics(
    metrics: Sequence[Metric], blocks: Mapping[str, Mapping[str, Any]], where: Callable[[str], str]
) -> None:
    """Try those metrics on a random image that are other people's, or whose models must be fetched.

    Raises UserError for one that fails, before a run or a test has begun; arguments are `build_metrics`'s.
    """
    rng = np.random.default_rng(0)
    image, reference = (rng.integers(0, 256, (TRIAL_SIDE, TRIAL_SIDE, 3), np.uint8) for _ in range(2))
    for metric in metrics:
        kind = blocks[metric.name]["type"]
        if kind in ("calculate_psnr", "calculate_ssim") and not is_foreign(METRICS.get(kind)):
            continue
        with torch.random.fork_rng(), foreign_code(f"{where(f'val.metrics.{metric.name}')}: {kind}"):
            metric(image, reference)


@dataclass
class Scores:
    """Metrics of the images of one data set, in its order."""

    images: dict[str, dict[str, float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """Image -> why it is missing in some means, or in all."""
    unread: frozenset[str] = frozenset()
    """Those of them that could not be read at all: the means are of other images than usual."""

    def means(self) -> dict[str, float]:
        """Mean of each metric over the images, summed in their order: the same to the last digit on any machine."""
        names = list(dict.fromkeys(name for metrics in self.images.values() for name in metrics))
        values = {name: [metrics[name] for metrics in self.images.values() if name in metrics] for name in names}
        return {name: sum(column) / len(column) for name, column in values.items()}

    def as_json(self) -> dict[str, Any]:
        """{"psnr": mean, ..., "images": {name: {"psnr": value, ...}}}, and {"left_out": {name: reason}} if any are."""
        return {**self.means(), "images": self.images, **({"left_out": self.left_out} if self.left_out else {})}

    def notes(self, dataset: str) -> list[str]:
        """A line for each image that is missing in a mean, for logs and below tables."""
        return [f"{dataset}: {name} is left out of the mean: {reason}" for name, reason in self.left_out.items()]


def score(
    metrics: Sequence[Metric], image: np.ndarray, reference: np.ndarray | None
) -> tuple[dict[str, float], list[str]]:
    """The metrics of one image, and why it has not all; those that need a ground truth only where there is one."""
    values, problems = {}, []
    for metric in metrics:
        if metric.needs_reference and reference is None:
            continue
        try:
            values[metric.name] = metric(image, reference)
        except UserError as error:
            problems.append(f"{metric.name}: {error}")
    return values, problems
