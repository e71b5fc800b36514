"""Loaders of training steps and the data sets of an option file."""

import atexit
import ctypes
import errno
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.sharedctypes import RawValue
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

import mambair.data.realesrgan_dataset  # noqa: F401  (registers the data set)
from mambair.data.augmentations import build_augmentations
from mambair.data.bad_files import BadFiles
from mambair.data.builders import BuildContext, build_dataset
from mambair.data.contracts import EvaluationDataset
from mambair.data.samplers import DrawSampler, DrawSchedule, Stage, plan_batch
from mambair.data.seeded_dataset import BAD_SAMPLES, LoadingFailed, SeededDataset, collate
from mambair.errors import UserError
from mambair.options.schema import TestOptions, TrainOptions
from mambair.runtime.distributed import ProcessGroup

logger = logging.getLogger(__name__)

# What the system sends where the memory that processes share is used up; Windows has no such signal.
_BUS_ERROR = getattr(signal, "SIGBUS", None)

Batch = dict[str, Any]


@dataclass(frozen=True)
class LoadedBatch:
    """A micro-batch in memory."""

    content: Batch
    """Samples, tensors stacked: lq (B, C, h, w), gt (B, C, H, W), lists of lq_path and gt_path, ..."""
    first_draw: int
    """Number of its first sample in the order of the run."""


@dataclass(frozen=True)
class LoadedStep:
    """What one process needs for one training step."""

    iteration: int
    """Steps done before it."""
    total_batch: int
    """Samples of all processes together."""
    micro_batches: list[LoadedBatch]
    """One per accumulation step."""


class TrainLoader:
    """The training steps of one process, from `start_iter` to `total_iter`, loaded ahead by worker processes.

    Iterating raises UserError when more than `max_bad_samples` files could not be used (`bad_files` counts them). Use
    it as a context manager, which ends the workers and says so where one of them died.
    """

    def __init__(
        self,
        dataset: SeededDataset,
        schedule: DrawSchedule,
        *,
        rank: int = 0,
        start_iter: int = 0,
        total_iter: int,
        num_workers: int = 0,
        pin_memory: bool = False,
        max_bad_samples: int = 100,
    ) -> None:
        self.schedule = schedule
        self.rank = rank
        self.start_iter = start_iter
        self.total_iter = total_iter
        self.bad_files = BadFiles(max_bad_samples)
        # Shared with the workers, without a lock since they read it in a signal handler.
        self._closing = RawValue(ctypes.c_bool, False)
        self._batches: Iterator[Batch | LoadingFailed] | None = None
        self._workers: list[Any] = []
        self._loader = DataLoader(
            dataset,
            batch_sampler=DrawSampler(schedule, rank, start_iter, total_iter),
            collate_fn=collate,
            num_workers=min(num_workers, _processor_count()),
            pin_memory=pin_memory and torch.cuda.is_available(),
            worker_init_fn=partial(_init_worker, self._closing),
        )

    def __len__(self) -> int:
        return self.total_iter - self.start_iter

    def __enter__(self) -> "TrainLoader":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: object) -> None:
        """End the workers. A UserError takes the place of what torch raises wherever this process is when one dies."""
        self.close()
        if is_short_of_shared_memory(error):
            raise too_little_shared_memory() from error
        if error is not None and is_worker_death(error):
            raise worker_died(error, self._workers) from error

    def __iter__(self) -> Iterator[LoadedStep]:
        self._closing.value = False
        self._batches = iter(self._loader)
        self._workers = list(getattr(self._batches, "_workers", ()))
        # At its end the interpreter sends workers a SIGTERM and waits for them: they must heed it by then.
        atexit.register(self.close)
        try:
            for iteration in range(self.start_iter, self.total_iter):
                draws = self.schedule.micro_batches(iteration, self.rank)
                loaded = [LoadedBatch(self._next_batch(), batch[0].number) for batch in draws]
                yield LoadedStep(iteration, self.schedule.stage_at(iteration).plan.total_batch, loaded)
        finally:
            self.close()

    def close(self) -> None:
        """End the worker processes."""
        self._closing.value = True
        # At once, not when the last traceback that refers to it is gone: a dead worker that torch still has on its list
        # raises again at every signal of any child process.
        shut_down = getattr(self._batches, "_shutdown_workers", None)
        self._batches = None
        if shut_down is not None:
            shut_down()
        atexit.unregister(self.close)

    def _next_batch(self) -> Batch:
        assert self._batches is not None
        try:
            batch = next(self._batches)
        except (ConnectionError, EOFError, FileNotFoundError) as error:  # it died while it handed over a batch
            raise worker_died(error, self._workers) from error
        if isinstance(batch, LoadingFailed):
            raise UserError(batch.message)
        self.bad_files.add(batch.pop(BAD_SAMPLES))
        return batch


def is_worker_death(error: BaseException) -> bool:
    """Whether torch says that a worker ended other than by an exception, which it raises again with its traceback."""
    return type(error) is RuntimeError and str(error).startswith("DataLoader worker")


def is_short_of_shared_memory(error: BaseException | None) -> bool:
    """Whether a batch, or a lock, found no room in /dev/shm, in this process or in a worker."""
    text = str(error)
    no_room = any(words in text for words in ("No space left on device", "Bus error", "insufficient shared memory"))
    shared = any(words in text for words in ("shm", "/torch_", "DataLoader worker", "shared memory"))
    if isinstance(error, RuntimeError):
        return (no_room and shared) or "unable to allocate shared memory" in text or "unable to mmap" in text
    return isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None


def too_little_shared_memory() -> UserError:
    """What the user is told then."""
    return UserError(
        "datasets.train: there is too little shared memory (/dev/shm) for the batches of loader processes; start the "
        "container with --shm-size=8g (or --ipc=host), or set num_worker_per_gpu: 0"
    )


def worker_died(error: BaseException, workers: Sequence[Any]) -> UserError:
    """What the user is told then, by what the system says of the processes: torch may know only that one ended."""
    if workers:
        wait([worker.sentinel for worker in workers], timeout=1)  # the one that died may be about to
    if _BUS_ERROR is not None and any(worker.exitcode == -_BUS_ERROR for worker in workers):
        return too_little_shared_memory()
    return UserError(
        f"a data loader process died ({error}); if the machine ran out of memory, lower "
        "datasets.train.num_worker_per_gpu"
    )


def _processor_count() -> int:
    """Processors that this process may use: more workers than that only get in each other's way."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _init_worker(closing: ctypes.c_bool, worker_id: int) -> None:
    """Workers are one thread each, and leave the end of a run to the process that trains.

    Ctrl-C and SLURM's SIGTERM reach all processes, while the training process still wants to save: a SIGTERM ends
    a worker only when the loader is `closing`.
    """

    def on_terminate(signum: int, frame: object) -> None:
        if closing.value:
            os._exit(0)

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_terminate)


def build_schedule(options: TrainOptions, world_size: int) -> DrawSchedule:
    """Total batches, patches and their division among processes over the run.

    The total batch is what the option file states for its own number of GPUs; fewer processes accumulate.
    """
    section = options.datasets["train"]
    where = options.where("datasets.train")
    single = [] if section.batch_size_per_gpu is None else [section.batch_size_per_gpu]
    largest = section.mini_batch_sizes or single
    stages = []
    for stage, micro_batch in zip(options.stages(world_size), largest, strict=True):
        plan = plan_batch(stage.total_batch, world_size, micro_batch, where)
        stages.append(Stage(stage.first_iter, plan, stage.gt_size if section.is_progressive else None))
    return DrawSchedule(stages)


def build_train_loader(options: TrainOptions, process_group: ProcessGroup, start_iter: int = 0) -> TrainLoader:
    """The loader of datasets.train for one process, going on after `start_iter` steps.

    The first process checks all files. Logs how the total batch is shared out, stage by stage.
    """
    section = options.datasets["train"]
    schedule = build_schedule(options, process_group.world_size)
    for stage in schedule.stages:
        prefix = f"from iteration {stage.first_iter}, patches of {stage.gt_size}: " if section.is_progressive else ""
        logger.info("%s%s", prefix, stage.plan)
    context = BuildContext(options.where, "datasets.train", options.scale, training=True, check=process_group.rank == 0)
    dataset = SeededDataset(
        build_dataset(section, context),
        options.manual_seed,
        enlarge_ratio=section.dataset_enlarge_ratio,
        shuffle=section.use_shuffle,
        augment=build_augmentations(
            section.augmentations, options.where, "datasets.train.augmentations", per_batch=False
        ),
    )
    return TrainLoader(
        dataset,
        schedule,
        rank=process_group.rank,
        start_iter=start_iter,
        total_iter=options.train.total_iter,
        num_workers=section.num_worker_per_gpu,
        pin_memory=section.pin_memory,
        max_bad_samples=section.max_bad_samples,
    )


def build_val_datasets(options: TrainOptions | TestOptions, check: bool = True) -> dict[str, EvaluationDataset]:
    """Name -> data set of every validation and test section, in the file's order.

    `check`: inspect all files first; in a run of several processes one of them is enough.
    """
    datasets: dict[str, EvaluationDataset] = {}
    for phase, section in options.datasets.items():
        if phase != "train":
            context = BuildContext(options.where, f"datasets.{phase}", options.scale, training=False, check=check)
            datasets[options.dataset_name(phase)] = build_dataset(section, context)
    return datasets


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on `device`; copies from pinned memory overlap with computation."""
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }
