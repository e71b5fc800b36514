"""One iteration of training: gradients accumulated over micro-batches and processes, checked, clipped, applied."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from mambair.data.loaders import LoadedBatch, LoadedStep
from mambair.engine.draws import preparation_rng, seed_phase
from mambair.engine.passes import GraphedPasses, PlainPasses
from mambair.engine.usual_loss import UsualLoss
from mambair.errors import UserError
from mambair.imaging.files import printable
from mambair.models.base_model import Batch, Phase, TrainableModel
from mambair.models.optimizers import ScheduledOptimizer
from mambair.runtime.distributed import ProcessGroup, all_gather_object

logger = logging.getLogger(__name__)

# Below this loss scale fp16 gradients are not finite at any scale: it is not the scaling that overflows.
MIN_SCALE = 1.0


class NonFiniteError(UserError):
    """A loss or a gradient is no longer a finite number."""


@dataclass(frozen=True)
class StepResult:
    """What an iteration gave."""

    losses: dict[str, Tensor]
    """This process's share of each loss; the mean over the processes is the mean over the total batch."""
    rates: dict[str, float]
    """Learning rate per network."""
    norms: dict[str, float]
    """Gradient norm per network, before clipping."""
    stop: bool
    """Whether any process was asked to stop."""


@dataclass(frozen=True)
class Verdict:
    """What all processes agree on after the backward pass of a phase."""

    bad_loss: bool
    bad_norm: bool
    spike: bool
    stop: bool
    norm: float


class Stepper:
    """Takes the optimiser steps of a model.

    Args:
        model: what is trained.
        group: this process among those of the run.
        seed: of the draws that belong to the micro-batches.
        clip_norm: largest gradient norm, None for no clipping.
        skip_nonfinite: steps in a row with non-finite numbers that are skipped before the run stops.
        graphs: replay the passes as CUDA graphs; see `passes.graph_refusal` for the models that allow it.
    """

    def __init__(
        self,
        model: TrainableModel,
        group: ProcessGroup,
        *,
        seed: int,
        clip_norm: float | None = None,
        skip_nonfinite: int = 0,
        graphs: bool = False,
    ) -> None:
        self.model = model
        self.group = group
        self.seed = seed
        self.clip_norm = clip_norm
        self.skip_nonfinite = skip_nonfinite
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=model.amp_dtype is torch.float16)
        self.passes = GraphedPasses(model, self.scaler, group.world_size) if graphs else PlainPasses(model, self.scaler)
        self.skipped_in_a_row = 0
        self._usual = {name: UsualLoss(model.device) for name in model.optimizers}

    def step(self, loaded: LoadedStep, stop: bool) -> StepResult:
        """Take the step that follows `loaded.iteration` completed ones.

        `stop`: whether this process was asked to stop; the result says whether any was. Raises NonFiniteError
        when the numbers have gone bad.
        """
        iteration, micro_batches = loaded.iteration, loaded.micro_batches
        batches = [
            self.model.prepare(batch.content, preparation_rng(self.seed, batch.first_draw)) for batch in micro_batches
        ]
        result = StepResult({}, {}, {}, stop)
        for number, phase in enumerate(self.model.phases(iteration)):
            optimizer = self.model.optimizers[phase.network]
            result.rates[phase.network] = optimizer.set_iteration(iteration)
            self.passes.zero_gradients(optimizer)
            losses, totals = self._backward(phase, number, loaded, batches)
            verdict = self._judge(phase, optimizer, sum(totals), stop)
            result.losses.update(losses)
            result.norms[phase.network] = verdict.norm
            stop = stop or verdict.stop
            if verdict.spike:
                self._report_spike(iteration, micro_batches, totals)
            if verdict.bad_loss or verdict.bad_norm:
                self._skip_or_raise(iteration, micro_batches, totals, verdict)
                break
            self.scaler.step(optimizer.optimizer)
        else:
            self.skipped_in_a_row = 0
            for name, average in self.model.averages.items():
                average.update_parameters(self.model.networks[name])
        self.scaler.update()
        return StepResult(result.losses, result.rates, result.norms, stop)

    def _backward(
        self, phase: Phase, number: int, loaded: LoadedStep, batches: Sequence[Batch]
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Accumulate gradients; returns the losses by name, and their sum for each micro-batch."""
        losses: dict[str, Tensor] = {}
        totals = []
        with self.model.freezing(phase.frozen):
            for index, (micro_batch, batch) in enumerate(zip(loaded.micro_batches, batches, strict=True)):
                # Gradients are averaged over the processes: each micro-batch counts as its part of the total batch.
                weight = size_of(micro_batch) * self.group.world_size / loaded.total_batch
                seed_phase(self.seed, micro_batch.first_draw, number, self.model.device)
                values, total = self.passes.run(phase, batch, weight, last=index == len(batches) - 1)
                totals.append(total)
                for name, value in values.items():
                    losses[name] = losses.get(name, 0.0) + value * weight
        return losses, totals

    def _judge(self, phase: Phase, optimizer: ScheduledOptimizer, total: Tensor, stop: bool) -> Verdict:
        """Clip the gradients, and agree with the other processes on what they and the loss are like."""
        self.scaler.unscale_(optimizer.optimizer)
        parameters = [parameter for parameter in optimizer.parameters if parameter.grad is not None]
        norm = get_total_norm([parameter.grad for parameter in parameters])
        if self.clip_norm is not None:
            clip_grads_with_norm_(parameters, self.clip_norm, norm)
        spike = self._usual[phase.network].is_spike(total)
        flags = torch.stack([~total.isfinite(), ~norm.isfinite(), spike, torch.full_like(spike, stop)]).to(norm.dtype)
        if self.group.world_size > 1:
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        # The one wait for the device in an iteration: weights must not be stepped before the numbers are known.
        *decisions, value = torch.cat([flags, norm.view(1)]).tolist()
        bad_loss, bad_norm, spike, stop = (decision > 0 for decision in decisions)
        if self.scaler.is_enabled() and self.scaler.get_scale() >= MIN_SCALE:
            bad_norm = False  # fp16's loss scale was too high: the scaler leaves out the step and lowers it
        return Verdict(bad_loss, bad_norm, spike, stop, value)

    def _skip_or_raise(
        self, iteration: int, micro_batches: Sequence[LoadedBatch], totals: Sequence[Tensor], verdict: Verdict
    ) -> None:
        self.skipped_in_a_row += 1
        what = "loss" if verdict.bad_loss else "gradient norm"
        files = self._gather_files(micro_batches, totals, only_bad=verdict.bad_loss)
        message = f"iteration {iteration + 1}: the {what} is not finite; files of the batch: {', '.join(files)}"
        if self.skipped_in_a_row > self.skip_nonfinite:
            raise NonFiniteError(message)
        logger.warning("%s; the step is skipped (%d in a row)", message, self.skipped_in_a_row)

    def _report_spike(self, iteration: int, micro_batches: Sequence[LoadedBatch], totals: Sequence[Tensor]) -> None:
        files = self._gather_files(micro_batches, totals, only_bad=False)
        logger.warning("iteration %d: the loss jumped; files of the batch: %s", iteration + 1, ", ".join(files))

    def _gather_files(
        self, micro_batches: Sequence[LoadedBatch], totals: Sequence[Tensor], only_bad: bool
    ) -> list[str]:
        """The files of the iteration over all processes; `only_bad`: of micro-batches whose loss is not finite."""
        own = [
            name
            for batch, total in zip(micro_batches, totals, strict=True)
            if not (only_bad and math.isfinite(total.item()))
            for name in files_of(batch)
        ]
        return [name for names in all_gather_object(own) for name in names]


def size_of(batch: LoadedBatch) -> int:
    """Samples in a micro-batch."""
    return next(len(value) for value in batch.content.values() if isinstance(value, Tensor))


def files_of(batch: LoadedBatch) -> list[str]:
    """The files that the samples of a micro-batch came from, each once."""
    names = (printable(path) for key in ("lq_path", "gt_path") for path in batch.content.get(key, ()))
    return list(dict.fromkeys(names))
