"""What a graph of a network rests on, besides its input: modules, their settings, and where tensors lie."""

import itertools
from operator import attrgetter, is_
from typing import Any

from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.modules import module as nn_module

_KEPT_BY_MODULES = {*nn.Module().__dict__} - {"training"}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_OURS = ("torch.nn.", "mambair.")


class Fingerprint:
    """A network as it is now.

    Whoever keeps this does not keep the network alive: only its parts.
    """

    def __init__(self, network: nn.Module, left_out: frozenset[str] = frozenset()) -> None:
        """`left_out`: attributes of the network itself that make no difference."""
        self._left_out = left_out
        parts = [module for module in network.modules() if module is not network]
        self._parts = [vars(module) for module in parts]
        everything = [vars(network), *self._parts]
        self._children = [held["_modules"] for held in everything]
        self._tensors = [held[name] for held in everything for name in ("_parameters", "_buffers")]
        self._hooks = [held[name] for held in everything for name in _HOOKS]
        self._places = [(held, name) for held in self._parts for name in held.keys() - _KEPT_BY_MODULES]
        self._kinds = {type(module) for module in (network, *parts)}
        self._taken = self._now(network)
        self._tensors_taken = self._tensors_now()
        self._had_no_hooks = self._has_no_hooks()
        self.is_plain = self._had_no_hooks and not any(
            module._compiled_call_impl is not None or "forward" in vars(module) for module in (network, *parts)
        )
        self.is_ours = all(f"{kind.__module__}.".startswith(_OURS) for kind in self._kinds)
        self.recomputes = any(getattr(module, "use_checkpoint", False) for module in (network, *parts))

    def _has_no_hooks(self) -> bool:
        return not any(self._hooks) and not nn_module._has_any_global_hook()

    def _now(self, network: nn.Module) -> list[Any]:
        """Objects that have to stay the same ones."""
        own = vars(network)
        return [
            *(own[name] for name in sorted(own.keys() - _KEPT_BY_MODULES - self._left_out)),
            *(held.get(name) for held, name in self._places),
            *itertools.chain.from_iterable(held.values() for held in self._children),
            *(kind.forward for kind in self._kinds),
        ]

    def _tensors_now(self) -> list[Any]:
        """Where tensors lie and of what type; casts that end at the same place are told by the type."""
        tensors = self.tensors()
        lengths = map(len, (*self._parts, *self._tensors))
        return [*map(Tensor.data_ptr, tensors), *map(attrgetter("dtype"), tensors), *lengths]

    def tensors(self) -> list[Tensor]:
        """Parameters and buffers, in the order of modules; those of several modules several times."""
        found = itertools.chain.from_iterable(held.values() for held in self._tensors)
        return [tensor for tensor in found if tensor is not None]

    def wanted(self) -> tuple[bool, ...]:
        """Which of the tensors want gradients."""
        return tuple(map(attrgetter("requires_grad"), self.tensors()))

    def parameters(self) -> list[Tensor]:
        """Those that want gradients, each once."""
        wanted = {id(tensor): tensor for tensor in self.tensors() if tensor.requires_grad}
        return list(wanted.values())

    @property
    def slots(self) -> list[dict[str, Tensor | None]]:
        """The dictionaries that hold the tensors."""
        return self._tensors

    def is_on(self, device: Any) -> bool:
        """Whether all tensors are ordinary ones of this device, and parameters leaves of autograd's."""
        return all(type(t) in (Tensor, Parameter) and t.is_leaf and t.device == device for t in self.tensors())

    def fits(self, network: nn.Module) -> bool:
        """Whether a graph of the network as it was computes what it would now."""
        now = self._now(network)
        return (
            len(now) == len(self._taken)
            and all(map(is_, now, self._taken))
            and self._tensors_now() == self._tensors_taken
            and self._has_no_hooks() == self._had_no_hooks
        )
