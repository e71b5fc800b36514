"""What the Trainer asks of a model: networks, their optimisers, and the losses of an iteration in phases.

An iteration is one or more phases; a phase is one step of one optimiser:

    batches = [model.prepare(batch, rng) for batch in micro_batches]
    for phase in model.phases(iteration):
        with the networks in phase.frozen not requiring gradients:
            for batch in batches:
                sum(phase.losses(batch).values()).backward()      # scaled, accumulated, synchronised
        clip, check, step phase.optimizer
    update the averages (EMA) of the networks that were stepped

A restoration model has one phase. An adversarial model has a generator phase (discriminator frozen) and a discriminator
phase, and leaves out the generator's while only the discriminator is to learn (`net_d_iters`, `net_d_init_iters`). What
one phase hands to the next (the restored images, detached) it puts into `batch`, which lives for one iteration.

All the randomness of a micro-batch comes from the `rng` given to `prepare`, or from torch's global generators
(DropPath), which the Trainer seeds for each micro-batch; both are functions of the run's seed and the number of the
micro-batch's first sample. State beside networks and optimisers, a queue of pairs for instance, goes through
`extra_state`.

On several processes call `self.wrapped(name)` for the network that a phase steps, once a phase (put real and restored
images into one batch), and `self.networks[name]` for those it does not.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from mambair.models.ema import make_average
from mambair.models.optimizers import ScheduledOptimizer

Batch = dict[str, Any]
"""What a loader gave, and `iteration`, the number of iterations done before."""


@dataclass(frozen=True)
class Phase:
    """One optimiser step of an iteration."""

    network: str
    """The network that is stepped, by its name in `networks` (net_g, net_d)."""
    losses: Callable[[Batch], dict[str, Tensor]]
    """Named scalar losses of a micro-batch, weighted, means over its samples; their sum is what is minimised.

    Keys are what logs call them (l_pix, l_g_gan). A value without gradient is logged only."""
    frozen: tuple[str, ...] = ()
    """Networks that gradients pass through without being computed for them."""
    variant: str = ""
    """Differs where the phase computes something else than before, so that no captured pass of then is replayed."""


class TrainableModel(ABC):
    """Base of the models that the Trainer can train.

    Attributes:
        device: where the networks live.
        networks: bare networks by the names that checkpoint files carry: {"net_g": ..., "net_d": ...}.
        averages: exponential moving averages of some of them, saved as `params_ema`.
        optimizers: one ScheduledOptimizer for each network that is trained. Empty in a model for inference.
    """

    def __init__(self, networks: Mapping[str, nn.Module], device: torch.device, amp_dtype: torch.dtype | None) -> None:
        self.device = device
        self.networks = {name: network.to(device) for name, network in networks.items()}
        self.averages: dict[str, AveragedModel] = {}
        self.optimizers: dict[str, ScheduledOptimizer] = {}
        self.amp_dtype = amp_dtype
        self._callable: dict[str, nn.Module] = dict(self.networks)
        self._compiled = False

    @abstractmethod
    def phases(self, iteration: int) -> Sequence[Phase]:
        """The phases of the step that follows `iteration` completed ones; at least one."""

    @abstractmethod
    def restore(self, lq: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> float32 (B, C, s*H, s*W), not clipped, as validation and tests judge it."""

    def prepare(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """The micro-batch as the phases want it: tensors on the device, degraded or mixed with draws from `rng`."""
        return self.on_device(batch)

    def on_device(self, batch: Batch) -> Batch:
        """The micro-batch with its tensors on the device."""
        return {
            key: value.to(self.device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }

    def extra_state(self) -> dict[str, Any]:
        """This process's state beside networks and optimisers, as tensors, numbers, strings, lists, dicts."""
        return {}

    def load_extra_state(self, states: Sequence[Mapping[str, Any]], rank: int) -> None:
        """Take back what `extra_state` gave in each process of the run that saved it; there may be more or fewer."""
        assert not any(states), f"{type(self).__name__} saves state that it does not load"

    def wrapped(self, name: str) -> nn.Module:
        """The network to call for outputs that gradients are wanted of: compiled and distributed if asked for."""
        return self._callable[name]

    def compile(self) -> None:
        """Compile every trained network with torch.compile; the first iterations then take minutes."""
        for name in self.optimizers:
            self.networks[name].compile()
        self._compiled = True

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Within this block networks run uncompiled: to compile them for every size of image would take minutes.

        They have the weights that are to be judged and saved, which schedule-free optimisers keep beside others.
        """
        with ExitStack() as stack:
            if self._compiled:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            for optimizer in self.optimizers.values():
                stack.enter_context(optimizer.judging())
            yield

    def distribute(self) -> None:
        """Average the gradients of every trained network over all processes."""
        # Said of depthwise convolutions, whose gradients differ in the stride of an axis of length one: of nothing.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        for name in self.optimizers:
            self._callable[name] = DistributedDataParallel(
                self.networks[name],
                device_ids=[self.device.index] if self.device.type == "cuda" else None,
                gradient_as_bucket_view=True,
            )

    def add_average(self, name: str, decay: float, warmup: bool = False) -> None:
        """Keep an exponential moving average of a network from its present weights on; none for decay 0.

        `warmup`: see `make_average`.
        """
        if decay > 0:
            self.averages[name] = make_average(self.networks[name], decay, warmup)

    def autocast(self) -> torch.autocast:
        """The context for forward passes: mixed precision if this model was built for it."""
        return torch.autocast(self.device.type, self.amp_dtype, enabled=self.amp_dtype is not None)

    @contextmanager
    def freezing(self, names: Sequence[str]) -> Iterator[None]:
        """Within this block no gradients are computed for the parameters of the named networks."""
        for name in names:
            self.networks[name].requires_grad_(False)
        try:
            yield
        finally:
            for name in names:
                self.networks[name].requires_grad_(True)
