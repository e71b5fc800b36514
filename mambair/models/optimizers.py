"""Optimisers, built from `{'type': 'Adam', 'lr': 2e-4, ...}`, and the learning rate each has at an iteration.

Names are those of torch.optim, and of the libraries schedulefree and pytorch_optimizer where they are installed (the
extra `optimizers`).
"""

import importlib
import inspect
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from mambair.errors import UserError
from mambair.models.schedules import build_schedule, with_warmup
from mambair.registry import OPTIMIZERS, did_you_mean
from mambair.runtime.foreign_code import foreign_code

# A_logs holds the logarithms of the decay rates of the states and Ds the skip of the scan: pulling them to zero
# would pull the state space model to a fixed dynamic, so weight decay leaves them alone.
UNDECAYED = ("A_logs", "Ds")

UNSUITABLE = ("LBFGS", "SparseAdam")
"""Of torch.optim: one computes the loss several times in a step, the other is for sparse gradients."""
LIBRARIES = ("schedulefree", "pytorch_optimizer")
"""Packages that have further optimisers under their own names."""

ParameterGroups = Iterable[dict[str, Any]]


def runs_fused(groups: Sequence[Mapping[str, Any]]) -> bool:
    """Whether torch's single-kernel step can be used: every parameter on a CUDA device."""
    return all(parameter.is_cuda for group in groups for parameter in group["params"])


@OPTIMIZERS.register("Adam")
def adam(
    groups: ParameterGroups,
    lr: float,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
) -> torch.optim.Adam:
    """torch.optim.Adam, fused on CUDA."""
    groups = list(groups)
    settings: dict[str, Any] = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
    return torch.optim.Adam(groups, amsgrad=amsgrad, fused=runs_fused(groups), **settings)


@OPTIMIZERS.register("AdamW")
def adamw(
    groups: ParameterGroups,
    lr: float,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    amsgrad: bool = False,
) -> torch.optim.AdamW:
    """torch.optim.AdamW (decay apart from the gradient), fused on CUDA."""
    groups = list(groups)
    settings: dict[str, Any] = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
    return torch.optim.AdamW(groups, amsgrad=amsgrad, fused=runs_fused(groups), **settings)


def optimizers_of(module: Any) -> dict[str, type[torch.optim.Optimizer]]:
    """The classes of optimisers that a module has, by name."""
    return {
        name: found
        for name, found in vars(module).items()
        if inspect.isclass(found) and issubclass(found, torch.optim.Optimizer) and found is not torch.optim.Optimizer
    }


OPTIMIZERS.add_library({name: found for name, found in optimizers_of(torch.optim).items() if name not in UNSUITABLE})


def register_from_libraries(name: str, where: str) -> None:
    """Register the optimiser called `name` from a library that has it. Raises UserError where none does."""
    if name in UNSUITABLE:
        raise UserError(f"{where}: {name} takes steps that a training run here does not; use another optimizer")
    for library in LIBRARIES:
        if find_spec(library) is not None:
            found = optimizers_of(importlib.import_module(library)).get(name)
            if found is not None:
                OPTIMIZERS.add_library({name: found})
                return
    missing = [library for library in LIBRARIES if find_spec(library) is None]
    hint = did_you_mean(name, OPTIMIZERS.names()) or f"; known: {', '.join(OPTIMIZERS.names())}"
    more = f"; {' and '.join(missing)} may have it: pip install 'mambair[optimizers]'" if missing else ""
    raise UserError(f"{where}: unknown optimizer '{name}'{hint}{more}")


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """The trainable parameters: those under weight decay, then, if there are any, those that are not."""
    named = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    decayed = [parameter for name, parameter in named if name.rpartition(".")[2] not in UNDECAYED]
    undecayed = [parameter for name, parameter in named if name.rpartition(".")[2] in UNDECAYED]
    groups: list[dict[str, Any]] = [{"params": decayed}]
    if undecayed:
        groups.append({"params": undecayed, "weight_decay": 0.0})
    return groups


def build_optimizer(
    groups: Sequence[dict[str, Any]], options: Mapping[str, Any], where: str = "train: optim_g"
) -> torch.optim.Optimizer:
    """The optimiser that `{'type': name, **keywords}` describes, of groups of parameters.

    Raises UserError for unknown names and keywords, and for an optimiser that cannot simply be stepped.
    """
    name = options.get("type")
    if isinstance(name, str) and name not in OPTIMIZERS:
        register_from_libraries(name, where)
    entry = OPTIMIZERS.get(str(name), where)
    parameters = next(iter(inspect.signature(entry).parameters))  # `params`, as torch calls it
    if inspect.isclass(entry) and not entry.__module__.startswith("torch."):
        try_steps(OPTIMIZERS.build(options, where=where, **{parameters: [nn.Parameter(torch.ones(2, 2))]}), where)
    return OPTIMIZERS.build(options, where=where, **{parameters: groups})


def try_steps(optimizer: torch.optim.Optimizer, where: str) -> None:
    """Take two steps with an optimiser of one small matrix: what needs more than a gradient shows here, not later."""
    name = type(optimizer).__name__
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UserError(f"{where}: {name} is no torch.optim.Optimizer; derive it from that class")
    with foreign_code(f"{where}: {name}, stepped with a gradient alone,", "; use another optimizer"):
        switch(optimizer, training=True)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.full_like(parameter, 0.1)
        for _ in range(2):
            optimizer.step()
        state = io.BytesIO()
        torch.save(optimizer.state_dict(), state)
        state.seek(0)
        torch.load(state, weights_only=True)  # as a run that goes on reads its checkpoint


def switches(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimiser keeps other weights for judging and saving than for training (schedule-free ones do)."""
    return callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))


def switch(optimizer: Any, *, training: bool) -> None:
    """Put an optimiser's weights into the state for training, or for judging; nothing happens with usual ones."""
    if switches(optimizer):
        optimizer.train() if training else optimizer.eval()


class ScheduledOptimizer:
    """The optimiser of one network together with its schedule.

    `optim` and `scheduler` are component blocks of an option file (`where_*`: their keys, for messages);
    `scheduler=None` keeps the learning rate constant.
    """

    def __init__(
        self,
        network: nn.Module,
        optim: Mapping[str, Any],
        scheduler: Mapping[str, Any] | None,
        *,
        warmup_iter: int = -1,
        where_optim: str = "train: optim_g",
        where_scheduler: str = "train: scheduler",
    ) -> None:
        self.network = network
        self.where = where_optim
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise UserError(f"{where_optim}: {type(network).__name__} has no parameters to train")
        self.optimizer = build_optimizer(parameter_groups(network), optim, where_optim)
        self.base_lr = float(self.optimizer.param_groups[0]["lr"])
        self.schedule = with_warmup(build_schedule(scheduler, where_scheduler), warmup_iter)
        self._judging = False
        switch(self.optimizer, training=True)

    def set_iteration(self, iteration: int) -> float:
        """Set, and return, the learning rate of the step that follows `iteration` completed ones."""
        lr = self.schedule(iteration, self.base_lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    @property
    def parameters(self) -> list[Tensor]:
        """Every parameter that this optimiser steps."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Within this block the network has the weights that are to be judged and saved.

        Those of schedule-free optimisers are averages, from which the weights to train on are computed again at the
        end: a run that is resumed from a checkpoint goes on with the same numbers as the one that wrote it.
        """
        if self._judging:
            yield
            return
        self._judging = True
        switch(self.optimizer, training=False)
        try:
            yield
        finally:
            switch(self.optimizer, training=True)
            self._judging = False

    def state_dict(self) -> dict[str, Any]:
        """torch's own state dict: tensors, numbers, lists."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the moments and counters from `state`; the settings (lr, betas, decay) stay those of the option file.

        BasicSR keeps all parameters in one group, in the order of the network; its state is brought into
        our order. Raises UserError when the parameters are not the same ones.
        """
        saved = [index for group in state["param_groups"] for index in group["params"]]
        own = self.parameters
        if len(saved) != len(own):
            raise UserError(
                f"{self.where}: the saved optimiser has {len(saved)} parameters, this network {len(own)}; "
                "resume with the option file that the run was started with"
            )
        if len(state["param_groups"]) == 1 and len(self.optimizer.param_groups) > 1:
            in_network_order = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
            index_of = {id(parameter): index for parameter, index in zip(in_network_order, saved, strict=True)}
            saved = [index_of[id(parameter)] for parameter in own]
        moments = {new: state["state"][old] for new, old in enumerate(saved) if old in state["state"]}
        for new, parameter in enumerate(own):
            mean = moments.get(new, {}).get("exp_avg")
            if mean is not None and mean.shape != parameter.shape:
                raise UserError(
                    f"{self.where}: a saved moment has shape {tuple(mean.shape)} where the network has "
                    f"{tuple(parameter.shape)}; resume with the option file that the run was started with"
                )
        self.optimizer.load_state_dict({"state": moments, "param_groups": self._groups_with(state["param_groups"])})
        switch(self.optimizer, training=True)

    def _groups_with(self, saved: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Our groups, with what the saved ones have counted: all that is no argument of the optimiser's class."""
        classes = [each for each in type(self.optimizer).__mro__ if issubclass(each, torch.optim.Optimizer)]
        settings = {name for each in classes for name in inspect.signature(each.__init__).parameters}
        groups = self.optimizer.state_dict()["param_groups"]
        for index, group in enumerate(groups):
            theirs = saved[min(index, len(saved) - 1)]
            group.update({key: theirs[key] for key in theirs.keys() - settings - {"params", "initial_lr"}})
        return groups
