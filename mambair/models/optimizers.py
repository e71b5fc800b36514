"""Optimisers, built from `{'type': 'Adam', 'lr': 2e-4, ...}`, and the learning rate each has at an iteration."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mambair.errors import UserError
from mambair.models.schedules import SCHEDULES, constant, with_warmup
from mambair.registry import Registry

OPTIMIZERS: Registry[torch.optim.Optimizer] = Registry("optimizer")

# A_logs holds the logarithms of the decay rates of the states and Ds the skip of the scan: pulling them to zero
# would pull the state space model to a fixed dynamic, so weight decay leaves them alone.
UNDECAYED = ("A_logs", "Ds")

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
    settings = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
    return torch.optim.Adam(groups, fused=runs_fused(groups), **settings)


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
    settings = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
    return torch.optim.AdamW(groups, fused=runs_fused(groups), **settings)


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """The trainable parameters: those under weight decay, then, if there are any, those that are not."""
    named = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    decayed = [parameter for name, parameter in named if name.rpartition(".")[2] not in UNDECAYED]
    undecayed = [parameter for name, parameter in named if name.rpartition(".")[2] in UNDECAYED]
    groups: list[dict[str, Any]] = [{"params": decayed}]
    if undecayed:
        groups.append({"params": undecayed, "weight_decay": 0.0})
    return groups


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
        self.optimizer = OPTIMIZERS.build(optim, where=where_optim, groups=parameter_groups(network))
        self.base_lr = float(optim["lr"])
        schedule = constant if scheduler is None else SCHEDULES.build(scheduler, where=where_scheduler)
        self.schedule = with_warmup(schedule, warmup_iter)

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

    def state_dict(self) -> dict[str, Any]:
        """torch's own state dict: tensors, numbers, lists."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the moments from `state`; the settings (lr, betas, decay) stay those of the option file.

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
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})
