"""The training loop: steps, log lines, checkpoints, validation, and a clean stop when asked for one."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mambair.data.bad_files import BadFiles
from mambair.data.loaders import LoadedStep
from mambair.engine.checkpoints.files import BEST, LATEST, CheckpointFolders, save_checkpoint, save_weights
from mambair.engine.checkpoints.position import Position
from mambair.engine.evaluate.validator import Interrupted
from mambair.engine.train.progress import TrainingProgress
from mambair.engine.train.signals import EXIT_CODES, StopRequest
from mambair.engine.train.step import NonFiniteError, Stepper, StepResult
from mambair.engine.train.trackers import Tracker
from mambair.engine.train.validation import RunValidation
from mambair.errors import UserError
from mambair.models.base_model import TrainableModel
from mambair.models.ema import updates_of
from mambair.runtime.distributed import all_gather_object, broadcast_object, is_main_process, reduce_mean
from mambair.runtime.run_folders import RunFolders
from mambair.runtime.seeding import get_rng_state

logger = logging.getLogger(__name__)

FORMAT = 1
"""Of the state files."""


@dataclass(frozen=True)
class Schedule:
    """When things happen, in iterations."""

    total_iter: int
    print_freq: int
    save_freq: int
    val_freq: int | None
    keep_checkpoints: int | None = None
    patience: int | None = None
    """Validations in a row without a better first metric after which training ends."""


class Trainer:
    """Trains a model.

    Args:
        model: already on its device, distributed, and with the weights and optimiser states to begin with.
        stepper: takes its optimiser steps.
        steps: this process's micro-batches for each iteration from `position` on.
        schedule: when to log, save and validate, and where to end.
        position: where to begin.
        folders: where the run writes.
        plan: how batches come about, kept in checkpoints: {"seed", "world_size", ...}.
        validation: judges the model; None for runs without.
        trackers: where curves go; only the first process has any.
        bad_files: what `steps` counts of unusable files.
        resumed_from: the state file that `position` comes from.
    """

    def __init__(
        self,
        model: TrainableModel,
        stepper: Stepper,
        steps: Iterator[LoadedStep],
        schedule: Schedule,
        position: Position,
        *,
        folders: RunFolders,
        plan: Mapping[str, Any],
        validation: RunValidation | None = None,
        trackers: Sequence[Tracker] = (),
        bad_files: BadFiles,
        resumed_from: Path | None = None,
    ) -> None:
        self.model = model
        self.stepper = stepper
        self.steps = steps
        self.schedule = schedule
        self.position = position
        self.checkpoints = CheckpointFolders(folders.models, folders.training_states)
        self.plan = plan
        self.validation = validation
        self.trackers = trackers
        self.bad_files = bad_files
        self.progress = TrainingProgress(schedule.total_iter, position.iteration, model.device)
        self.last_saved = resumed_from

    def train(self) -> int:
        """Run to the last iteration, or until asked to stop; returns the exit code: 0, or 130 or 143 when stopped.

        Raises UserError when the numbers have gone bad and when the last checkpoint cannot be written.
        """
        with StopRequest() as stop, self.progress:
            # A run may go on with an option file that has no validation any more.
            if self.position.validation_pending and self.validation is not None:
                if not self._validate(stop):
                    return self._stopped(stop)
                self._save()  # what the checkpoint that the run goes on from is short of
            while self.position.iteration < self.schedule.total_iter and not self._is_patience_over():
                self._iterate(stop)
                if not self._save_and_validate(stop):
                    return self._stopped(stop)
            if self.position.iteration < self.schedule.total_iter:
                self._end_early()
        with self.model.judging():
            if is_main_process():
                self._write("the latest weights", lambda: save_weights(self.checkpoints, self.model, LATEST))
        return 0

    def _iterate(self, stop: StopRequest) -> None:
        with self.progress.waiting_for_data():
            loaded = next(self.steps)
        assert loaded.iteration == self.position.iteration
        try:
            result = self.stepper.step(loaded, stop.requested)
            self.position.iteration += 1
            # Nothing is logged, saved or validated, and no run ends, before it is known that the numbers are good.
            frequencies = (self.schedule.print_freq, self.schedule.save_freq, self.schedule.val_freq)
            if self.stepper.stop or any(map(self._is_due, frequencies)):
                self.stepper.settle()
        except NonFiniteError as error:
            raise NonFiniteError(f"{error}; {self._way_back()}") from error
        self.progress.advance(loaded.total_batch)
        if self._is_due(self.schedule.print_freq):
            self._log(result)
            self.bad_files.share()

    def _is_patience_over(self) -> bool:
        """Whether the decisive metric has not become better for as many validations as the schedule waits for."""
        schedule = self.schedule
        if schedule.patience is None or schedule.val_freq is None or self.validation is None:
            return False
        best = self.position.best.get(self.validation.decisive)
        return best is not None and self.position.iteration - best["iter"] >= schedule.patience * schedule.val_freq

    def _end_early(self) -> None:
        """Say why the run ends before its last iteration, and leave a checkpoint of where it ends."""
        iteration = self.position.iteration
        logger.info("ends early: no better validation for %d in a row", self.schedule.patience)
        if self.last_saved != self.checkpoints.state(iteration):
            self._save()

    def _is_due(self, every: int | None) -> bool:
        """Whether something that happens every so many iterations, and at the end, happens now."""
        now = self.position.iteration
        return every is not None and (now % every == 0 or now == self.schedule.total_iter)

    def _save_and_validate(self, stop: StopRequest) -> bool:
        """Do what is due after an iteration; returns False if the run is to stop."""
        stop_agreed = self.stepper.stop
        validate = self.validation is not None and self._is_due(self.schedule.val_freq)
        save = stop_agreed or self._is_due(self.schedule.save_freq)
        self.position.validation_pending = validate
        # Saved before the validation, during which the run may be killed, and again with what the validation found.
        if save:
            self._save()
        if stop_agreed:
            return False
        if validate:
            finished = self._validate(stop)
            if save == finished:  # saved, and now there are results to add; or not saved, and stopped by request
                self._save()
            return finished
        return True

    def _validate(self, stop: StopRequest) -> bool:
        """Judge the model, if the images can be read; returns False if that was interrupted by a request to stop."""
        assert self.validation is not None
        with self.progress.paused():
            try:
                is_best = self.validation.run(self.model, self.position.iteration, self.position.best, stop)
            except Interrupted:
                return False
            except UserError as error:  # an image that has gone bad since the start: no reason to end the run
                logger.error("the validation at iteration %d is left out: %s", self.position.iteration, error)
                is_best = False
        self.position.validation_pending = False
        if is_best:
            with self.model.judging():
                if is_main_process():
                    self._write("the best weights", lambda: save_weights(self.checkpoints, self.model, BEST))
        return True

    def _log(self, result: StepResult) -> None:
        losses = reduce_mean(result.losses)
        norms = {name: norm.item() for name, norm in result.norms.items()}
        pace = self.progress.log(losses, result.rates, norms)
        values = {f"losses/{name}": value for name, value in losses.items()}
        values |= {f"learning_rate/{name}": value for name, value in result.rates.items()}
        values |= {f"gradient_norm/{name}": value for name, value in norms.items()}
        values["pace/images_per_second"] = pace.images_per_second
        for tracker in self.trackers:
            tracker.scalars(values, self.position.iteration)

    def _save(self) -> None:
        """Write a checkpoint. If that fails, the run goes on with the older ones, except at its end.

        Raises NonFiniteError rather than write weights that nothing can go on from in the place of older ones.
        """
        with self.model.judging():
            self._save_judged()

    def _save_judged(self) -> None:
        iteration = self.position.iteration
        if bad := [name for name, network in self.model.networks.items() if not has_finite_weights(network)]:
            raise NonFiniteError(
                f"iteration {iteration}: the weights of {', '.join(bad)} are not finite; {self._way_back()}"
            )
        state = self._state()
        written = True
        with self.progress.paused():
            if is_main_process():
                keep = self.schedule.keep_checkpoints
                written = self._write(
                    f"checkpoint {iteration}", lambda: save_checkpoint(self.checkpoints, self.model, state, keep)
                )
            written = broadcast_object(written)
        if written:
            self.last_saved = self.checkpoints.state(iteration)
        elif iteration == self.schedule.total_iter:
            raise UserError(f"the final weights could not be written; make room and start again; {self._way_back()}")

    def _state(self) -> dict[str, Any]:
        """All that a run goes on from beside the weights; every process must take part."""
        return {
            "format": FORMAT,
            "iter": self.position.iteration,
            "optimizers": [optimizer.state_dict() for optimizer in self.model.optimizers.values()],
            "schedulers": [{"last_epoch": self.position.iteration} for _ in self.model.optimizers],
            **self.stepper.state(),
            "processes": all_gather_object({"rng": get_rng_state(), "model": self.model.extra_state()}),
            "averages": {name: updates_of(average) for name, average in self.model.averages.items()},
            "plan": dict(self.plan),
            "best": self.position.best,
            "validation_pending": self.position.validation_pending,
        }

    def _write(self, what: str, action: Callable[[], object]) -> bool:
        """Do something that writes; a disk that is full or fails is logged and returned as False."""
        try:
            action()
        except OSError as error:
            logger.error("%s could not be written (%s); %s", what, error.strerror or error, self._way_back())
            return False
        return True

    def _way_back(self) -> str:
        """Where a run that stops now goes on from."""
        if self.last_saved is None:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {self.last_saved} (--auto_resume goes on from it)"

    def _stopped(self, stop: StopRequest) -> int:
        """Say where the run was stopped; returns its exit code."""
        number = next(number for number in all_gather_object(stop.signal) if number is not None)
        logger.warning(
            "stopped by %s after iteration %d of %d; %s",
            number.name,
            self.position.iteration,
            self.schedule.total_iter,
            self._way_back(),
        )
        return EXIT_CODES[number]


def has_finite_weights(network: nn.Module) -> bool:
    """Whether all that a checkpoint keeps of a network are finite numbers."""
    values = [value for value in network.state_dict().values() if value.is_floating_point()]
    return bool(torch.stack([value.isfinite().all() for value in values]).all())
