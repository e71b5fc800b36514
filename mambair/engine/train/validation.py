"""Validation while training: scores, the best so far, saved images, curves."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mambair.data.contracts import EvaluationDataset
from mambair.engine.evaluate.scoring import Metric, Scores
from mambair.engine.evaluate.tables import format_value
from mambair.engine.evaluate.validator import Judged, Validator, image_writer
from mambair.engine.train.signals import StopRequest
from mambair.engine.train.trackers import Tracker
from mambair.models.base_model import TrainableModel
from mambair.runtime.distributed import ProcessGroup

logger = logging.getLogger(__name__)

PICTURE_SIDE = 512
"""Trackers get the middle of the first image of each data set, at most this large."""

Best = dict[str, dict[str, Any]]


class RunValidation:
    """Judges a model on data sets.

    Args:
        datasets: by name.
        metrics: the first one (val.best) on the first data set decides which weights are the best.
        group: this process among those of the run.
        visualization: folder for restored images, None to write none.
        trackers: where curves and pictures go; only the first process has any.
        show_progress: draw a bar on a terminal.
    """

    def __init__(
        self,
        datasets: Mapping[str, EvaluationDataset],
        metrics: Sequence[Metric],
        group: ProcessGroup,
        *,
        visualization: Path | None = None,
        trackers: Sequence[Tracker] = (),
        show_progress: bool = True,
    ) -> None:
        self.datasets = dict(datasets)
        self.metrics = list(metrics)
        self.group = group
        self.visualization = visualization
        self.trackers = trackers
        self.show_progress = show_progress
        self._told: dict[str, dict[str, str]] = {}

    @property
    def decisive(self) -> str:
        """The data set and metric that say which weights are the best, as a key of `best`; '' if there is none."""
        return f"{next(iter(self.datasets))}/{self.metrics[0].name}" if self.datasets and self.metrics else ""

    def run(self, model: TrainableModel, iteration: int, best: Best, stop: StopRequest) -> bool:
        """Judge the model after `iteration`; returns whether it is the best so far, by the first metric.

        `best` ({"Set5/psnr": {"value", "iter"}}) is brought up to date. Raises Interrupted if a process was asked to
        stop; `best` is then as it was.
        """
        validator = Validator(self.metrics, self.group, self.show_progress, stop=lambda: stop.requested)
        pictures: dict[str, np.ndarray] = {}
        found: dict[str, Scores] = {}
        with model.judging():
            for name, dataset in self.datasets.items():
                keep = self._keeper(name, iteration, pictures)
                found[name] = validator.run(model.restore, dataset, name, keep)
        is_best = False
        weights = "; averaged weights" if model.averages else ""
        for position, (name, scores) in enumerate(found.items()):
            is_best |= self._note(name, scores, iteration, best, weights) and position == 0
            self._name_left_out(name, scores)
        for tracker in self.trackers:
            for name, scores in found.items():
                tracker.scalars({f"metrics/{name}/{key}": value for key, value in scores.means().items()}, iteration)
            for name, picture in pictures.items():
                tracker.image(f"validation/{name}", picture, iteration)
        return is_best

    def _note(self, name: str, scores: Scores, iteration: int, best: Best, weights: str) -> bool:
        """Log the scores of a data set and note the best ones; returns whether the first metric is the best so far.

        Means over other images than usual, of which some could not be read, are nobody's best. `weights` says which
        ones were judged.
        """
        means = scores.means()
        parts, improved = [], []
        for metric in self.metrics:
            if metric.name not in means:
                continue
            key, value = f"{name}/{metric.name}", means[metric.name]
            if not scores.unread and (key not in best or metric.is_better(value, best[key]["value"])):
                best[key] = {"value": value, "iter": iteration}
                improved.append(metric)
            record = best.get(key, {"value": None, "iter": 0})
            shown = (format_value(metric.name, number) for number in (value, record["value"]))
            parts.append("{} {} (best {} at {:,})".format(metric.name, *shown, record["iter"]))
        shown_scores = ", ".join(parts) or "images only"
        logger.info("validation at %s on %s: %s%s", f"{iteration:,}", name, shown_scores, weights)
        return bool(self.metrics) and self.metrics[0] in improved

    def _name_left_out(self, name: str, scores: Scores) -> None:
        """Log which images are missing in the means: once, and again when they are others."""
        if scores.left_out != self._told.get(name, {}):
            for note in scores.notes(name):
                logger.warning(note)
            self._told[name] = scores.left_out

    def _keeper(self, name: str, iteration: int, pictures: dict[str, np.ndarray]) -> Callable[[Judged], None]:
        write = None
        if self.visualization is not None:
            write = image_writer(self.visualization / name, str(iteration), per_image_folder=True)

        def keep(judged: Judged) -> None:
            if write is not None:
                try:
                    write(judged)
                except OSError as error:  # a full disk is no reason to end a run
                    logger.error("the image %s could not be written (%s)", judged.name, error.strerror or error)
            if self.trackers and judged.index == 0:
                pictures[name] = side_by_side(judged)

        return keep


def side_by_side(judged: Judged) -> np.ndarray:
    """Input (pixels repeated) | restored | ground truth, the middle of each."""
    factor = judged.restored.shape[0] // judged.lq.shape[0]
    enlarged = judged.lq.repeat(factor, axis=0).repeat(factor, axis=1)
    panels = [enlarged, judged.restored] + ([judged.gt] if judged.gt is not None else [])
    channels = max(panel.shape[2] for panel in panels)
    return np.concatenate([middle(panel).repeat(channels // panel.shape[2], axis=2) for panel in panels], axis=1)


def middle(image: np.ndarray) -> np.ndarray:
    """The middle of an (H, W, C) image, at most PICTURE_SIDE in each direction."""
    rows, columns = (
        slice((length - min(length, PICTURE_SIDE)) // 2, (length + min(length, PICTURE_SIDE)) // 2)
        for length in image.shape[:2]
    )
    return image[rows, columns]
