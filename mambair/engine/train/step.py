"""One iteration of training: gradients accumulated over micro-batches and processes, checked, clipped, applied."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from mambair.archs.replay import paused
from mambair.data.loaders import LoadedBatch, LoadedStep
from mambair.engine.train.draws import preparation_rng, seed_phase
from mambair.engine.train.passes import GraphedPasses, PlainPasses
from mambair.engine.train.usual_loss import UsualLoss
from mambair.errors import UserError
from mambair.imaging.files import printable
from mambair.models.base_model import Batch, Phase, TrainableModel
from mambair.models.ema import update_average
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
    norms: dict[str, Tensor]
    """Gradient norm per network, before clipping."""


@dataclass(frozen=True)
class _Verdict:
    """What all processes agree on after the backward pass of a phase; on a GPU it may not be known yet."""

    iteration: int
    micro_batches: Sequence[LoadedBatch]
    losses: Mapping[str, Tensor]
    """By name, of this process."""
    totals: Sequence[Tensor]
    flags: Tensor
    """On the CPU, once `known`: a loss, or the gradient norm, is not finite; a loss jumped; asked to stop."""
    known: torch.cuda.Event | None


class Stepper:
    """Takes the optimiser steps of a model.

    Args:
        model: what is trained.
        group: this process among those of the run.
        seed: of the draws that belong to the micro-batches.
        clip_norm: largest gradient norm, None for no clipping.
        skip_nonfinite: steps in a row with non-finite numbers that are skipped before the run stops.
        graphs: replay the passes as CUDA graphs; see `passes.graph_refusal` for the models that allow it.

    Steps on a GPU do not wait for it: whether an iteration's numbers were good, and whether a process was asked to
    stop, shows during the next one, or when `settle` is called. Only where a bad step may have to be left out
    (skip_nonfinite, fp16) is every one waited for.
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
        self._waits = model.device.type != "cuda" or skip_nonfinite > 0 or self.scaler.is_enabled()
        self._pending: _Verdict | None = None
        self.stop = False
        """Whether any process is known to have been asked to stop."""
        self._usual = {name: UsualLoss(model.device) for name in model.optimizers}

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of it."""
        return {"scaler": self.scaler.state_dict(), "skipped_in_a_row": self.skipped_in_a_row}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave; keys that are missing mean a beginning."""
        if self.scaler.is_enabled() and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        self.skipped_in_a_row = state.get("skipped_in_a_row", 0)

    @paused()  # `GraphedPasses` has the graphs, unless the run is to have none
    def step(self, loaded: LoadedStep, stop: bool) -> StepResult:
        """Take the step that follows `loaded.iteration` completed ones.

        `stop`: whether this process was asked to stop; it then shows in `self.stop`, as everything else does. Raises
        NonFiniteError when the numbers of this iteration or the one before have gone bad.
        """
        iteration, micro_batches = loaded.iteration, loaded.micro_batches
        batches = [
            self.model.prepare({**batch.content, "iteration": iteration}, preparation_rng(self.seed, batch.first_draw))
            for batch in micro_batches
        ]
        result = StepResult({}, {}, {})
        for number, phase in enumerate(self.model.phases(iteration)):
            optimizer = self.model.optimizers[phase.network]
            result.rates[phase.network] = optimizer.set_iteration(iteration)
            self.passes.zero_gradients(optimizer)
            losses, totals = self._backward(phase, number, loaded, batches)
            norm, flags = self._judge(phase, optimizer, sum(totals[1:], totals[0]), stop)
            result.losses.update(losses)
            result.norms[phase.network] = norm
            self.settle()
            self._pending = self._verdict(iteration, micro_batches, losses, totals, flags)
            if self._waits and not self.settle():
                break
            self.scaler.step(optimizer.optimizer)
        else:
            self.skipped_in_a_row = 0
            for name, average in self.model.averages.items():
                update_average(average, self.model.networks[name])
        self.scaler.update()
        return result

    def settle(self) -> bool:
        """Wait until it is known whether all steps so far were good; returns False if the last one must be left out.

        Raises NonFiniteError when the numbers have gone bad.
        """
        verdict, self._pending = self._pending, None
        if verdict is None:
            return True
        if verdict.known is not None:
            verdict.known.synchronize()
        bad_loss, bad_norm, spike, stop = (flag > 0 for flag in verdict.flags.tolist())
        self.stop = self.stop or stop
        if spike:
            self._report_spike(verdict)
        if self.scaler.is_enabled() and self.scaler.get_scale() >= MIN_SCALE:
            bad_norm = False  # fp16's loss scale was too high: the scaler leaves out the step and lowers it
        if bad_loss or bad_norm:
            self._skip_or_raise(verdict, bad_loss)
            return False
        return True

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

    def _judge(self, phase: Phase, optimizer: ScheduledOptimizer, total: Tensor, stop: bool) -> tuple[Tensor, Tensor]:
        """Clip the gradients; returns their norm, and the flags of a `_Verdict` that all processes agree on."""
        self.scaler.unscale_(optimizer.optimizer)
        parameters = [parameter for parameter in optimizer.parameters if parameter.grad is not None]
        norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if self.clip_norm is not None:
            clip_grads_with_norm_(parameters, self.clip_norm, norm)
        spike = self._usual[phase.network].is_spike(total)
        flags = torch.stack([~total.isfinite(), ~norm.isfinite(), spike, torch.full_like(spike, stop)]).float()
        if self.group.world_size > 1:
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        return norm, flags

    def _verdict(
        self,
        iteration: int,
        micro_batches: Sequence[LoadedBatch],
        losses: Mapping[str, Tensor],
        totals: Sequence[Tensor],
        flags: Tensor,
    ) -> _Verdict:
        if not flags.is_cuda:
            return _Verdict(iteration, micro_batches, losses, totals, flags, None)
        host = torch.empty_like(flags, device="cpu", pin_memory=True)
        host.copy_(flags, non_blocking=True)
        known = torch.cuda.Event()
        known.record()
        return _Verdict(iteration, micro_batches, losses, totals, host, known)

    def _skip_or_raise(self, verdict: _Verdict, bad_loss: bool) -> None:
        self.skipped_in_a_row += 1
        what = "loss" if bad_loss else "gradient norm"
        files = ", ".join(self._gather_files(verdict, only_bad=bad_loss))
        names = self._gather_bad_losses(verdict)
        which = f" ({', '.join(names)})" if names else ""
        message = f"iteration {verdict.iteration + 1}: the {what} is not finite{which}; files of the batch: {files}"
        if self.skipped_in_a_row > self.skip_nonfinite:
            raise NonFiniteError(message)
        logger.warning("%s; the step is skipped (%d in a row)", message, self.skipped_in_a_row)

    def _gather_bad_losses(self, verdict: _Verdict) -> list[str]:
        """The names of the losses that are not finite in any process."""
        own = [name for name, value in verdict.losses.items() if not math.isfinite(float(value))]
        return list(dict.fromkeys(name for names in all_gather_object(own) for name in names))

    def _report_spike(self, verdict: _Verdict) -> None:
        files = self._gather_files(verdict, only_bad=False)
        logger.warning("iteration %d: the loss jumped; files of the batch: %s", verdict.iteration + 1, ", ".join(files))

    def _gather_files(self, verdict: _Verdict, only_bad: bool) -> list[str]:
        """The files of the iteration over all processes; `only_bad`: of micro-batches whose loss is not finite."""
        own = [
            name
            for batch, total in zip(verdict.micro_batches, verdict.totals, strict=True)
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
