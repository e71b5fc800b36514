"""Restoring and scoring data sets, each process its share of the images, with the same result as one process."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import cast

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from mambair.data.contracts import EvaluationDataset, LowQualitySample, Sample
from mambair.engine.evaluate.scoring import Metric, Scores, score
from mambair.errors import UserError
from mambair.imaging.files import printable, write_image
from mambair.imaging.resize import imresize
from mambair.imaging.tensors import tensor_to_image
from mambair.runtime.distributed import ProcessGroup, all_gather_object, is_main_process
from mambair.runtime.log_setup import console

Restore = Callable[[Tensor], Tensor]
"""(1, C, H, W) in [0, 1] -> (1, C, s*H, s*W)."""

# Scoring (SSIM above all) takes as long as a GPU needs to restore an image: a few images are scored beside it.
SCORING_THREADS = 4


@dataclass(frozen=True)
class Judged:
    """An image as it was restored: uint8 (H, W, C), RGB or gray."""

    name: str
    index: int
    lq: np.ndarray
    restored: np.ndarray
    gt: np.ndarray | None


class Interrupted(Exception):
    """The run was asked to stop during a validation, on any process."""


@dataclass(frozen=True)
class Validator:
    """How data sets are judged.

    Attributes:
        metrics: what is computed for every image.
        group: this process among those of the run; process r takes images r, r + world_size, ...
        show_progress: draw a progress bar (on a terminal).
        stop: asked between images; when it returns True on any process, `run` raises Interrupted on all.
    """

    metrics: Sequence[Metric]
    group: ProcessGroup
    show_progress: bool = True
    stop: Callable[[], bool] = bool

    def run(
        self,
        restore: Restore,
        dataset: EvaluationDataset,
        name: str,
        keep: Callable[[Judged], None] | None = None,
    ) -> Scores:
        """Restore and score all images of a data set called `name`; every process gets the scores of all of them.

        An image that cannot be read, or not be judged by a metric, is left out of the means and named. `keep` is called
        with each image that this process restored, from another thread. Raises UserError, on every process, where one
        cannot restore.
        """
        names = image_names(dataset)
        own = range(self.group.rank, len(dataset), self.group.world_size)
        found: dict[int, _Found] = {}
        problem = None
        try:
            found = self._judge_own(restore, dataset, name, own, names, keep)
        except UserError as error:
            problem = str(error)
        return self._gather(names, found, complete=len(found) == len(own), problem=problem)

    def _judge_own(
        self,
        restore: Restore,
        dataset: EvaluationDataset,
        name: str,
        own: Sequence[int],
        names: Sequence[str],
        keep: Callable[[Judged], None] | None,
    ) -> "dict[int, _Found]":
        """What was found of this process's images by index; of some of them where it is asked to stop."""
        scored: dict[int, Future[_Found]] = {}
        found: dict[int, _Found] = {}
        with (
            ThreadPoolExecutor(1) as reader,
            ThreadPoolExecutor(SCORING_THREADS) as scorer,
            progress_bar(self.show_progress) as progress,
        ):
            task = progress.add_task(name, total=len(own))
            for index, sample in prefetched(dataset, own, reader):
                if self.stop():
                    break
                progress.advance(task)
                if isinstance(sample, UserError):
                    found[index] = _Found({}, str(sample), read=False)
                    continue
                restored = restore(sample["lq"].unsqueeze(0))[0]
                scored[index] = scorer.submit(self._judge, names[index], index, sample, restored.cpu(), keep)
                # Images wait in memory until they are scored: at most two for each thread.
                if len(scored) >= 2 * SCORING_THREADS:
                    list(scored.values())[-2 * SCORING_THREADS].result()
            return found | {index: future.result() for index, future in scored.items()}

    def _judge(
        self,
        name: str,
        index: int,
        sample: Sample | LowQualitySample,
        restored: Tensor,
        keep: Callable[[Judged], None] | None,
    ) -> "_Found":
        gt = tensor_to_image(cast(Sample, sample)["gt"]) if "gt" in sample else None
        try:
            judged = Judged(name, index, tensor_to_image(sample["lq"]), tensor_to_image(restored), gt)
        except UserError as error:
            raise UserError(f"{printable(sample['lq_path'])}: restored, {error}") from error
        if keep is not None:
            keep(judged)
        values, problems = score(self.metrics, judged.restored, gt)
        return _Found(values, "; ".join(problems))

    def _gather(
        self, names: Sequence[str], found: "Mapping[int, _Found]", complete: bool, problem: str | None
    ) -> Scores:
        parts = all_gather_object((complete, problem, dict(found)))
        for _, their_problem, _ in parts:
            if their_problem is not None:
                raise UserError(their_problem)
        if not all(part_complete for part_complete, _, _ in parts):
            raise Interrupted
        merged = {index: each for _, _, part in parts for index, each in part.items()}
        in_order = {name: merged[index] for index, name in enumerate(names)}
        return Scores(
            {name: each.values for name, each in in_order.items() if each.read},
            {name: each.problem for name, each in in_order.items() if each.problem},
            frozenset(name for name, each in in_order.items() if not each.read),
        )


@dataclass(frozen=True)
class _Found:
    """What was found of one image."""

    values: dict[str, float]
    problem: str = ""
    read: bool = True


def image_names(dataset: EvaluationDataset) -> list[str]:
    """A name for each image: its file name without extension; equal ones (of several roots) are numbered."""
    names: dict[str, None] = {}
    for path in dataset.paths:
        stem = PurePath(path).stem
        candidates = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
        names[next(candidate for candidate in candidates if candidate not in names)] = None
    return list(names)


def prefetched(
    dataset: EvaluationDataset, indices: Sequence[int], reader: ThreadPoolExecutor
) -> Iterator[tuple[int, Sample | LowQualitySample | UserError]]:
    """(index, sample) in order, each read while the one before is worked on; the error where one cannot be read."""

    def read(index: int) -> Sample | LowQualitySample | UserError:
        try:
            return dataset[index]
        except UserError as error:
            return error

    coming = [reader.submit(read, index) for index in indices[:1]]
    for position, index in enumerate(indices):
        sample = coming.pop().result()
        coming += [reader.submit(read, following) for following in indices[position + 1 : position + 2]]
        yield index, sample


def progress_bar(enabled: bool) -> Progress:
    """A bar over images; drawn on terminals only, and by the first process only."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (enabled and is_main_process() and console.is_terminal),
    )


def upscale_bicubic(scale: int) -> Restore:
    """The baseline of super-resolution: MATLAB's bicubic interpolation of the uint8 image."""

    def restore(lq: Tensor) -> Tensor:
        image = imresize(tensor_to_image(lq[0]), scale)
        return torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0).float() / 255

    return restore


def pass_through(lq: Tensor) -> Tensor:
    """The baseline of denoising and JPEG artifact removal: the input itself."""
    return lq


def image_writer(folder: Path, label: str, per_image_folder: bool = False) -> Callable[[Judged], None]:
    """A `keep` that writes restored images as <folder>/<image>_<label>.png.

    While training each image has a folder for its stages: <folder>/<image>/<image>_<iter>.png.
    """

    def write(judged: Judged) -> None:
        parent = folder / judged.name if per_image_folder else folder
        write_image(parent / f"{judged.name}_{label}.png", judged.restored)

    return write
