"""What every restoration network has in common."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mambair.archs.blocks import RSSB, no_weight_decay_names
from mambair.archs.hub import HubMixin
from mambair.archs.replay import KEPT_AS, forget, replayed
from mambair.errors import UserError

RECOMPILE_LIMIT = 64


class RestorationNetwork(
    nn.Module,
    HubMixin,
    library_name="mambair",
    license="apache-2.0",
    pipeline_tag="image-to-image",
    tags=["mambair", "image-restoration", "super-resolution", "denoising"],
):
    """Base of the networks: (B, in_channels, H, W) in [0, 1] -> (B, C', H * scale, W * scale), any H, W >= 1.

    `from_pretrained`, `save_pretrained` and `push_to_hub` are huggingface_hub's (extra `hub`): a folder or repository
    with config.json and model.safetensors.
    """

    scale: int
    """How many times larger the output is than the input."""
    in_channels: int
    """Channels of the input image: 3 colour, 1 gray."""
    size_multiple: int = 1
    """H and W are padded to multiples of this inside forward; tiles of such sizes waste nothing."""
    block_types: tuple[type[nn.Module], ...] = (RSSB,)
    """The modules that the network is these many times over, which `compile` compiles."""
    compiling_pays: bool = True
    """Whether compiled blocks take less time in a CUDA graph than blocks as they are."""
    replays_graphs: bool = False
    """Whether passes without gradients are replayed as CUDA graphs unless images are large, see `mambair.archs.replay`;
    a class says so for itself, not for those derived from it. False in a network gives the graphs' memory back."""
    replays_steps: bool = False
    """The same for passes with gradients."""
    hyperparameters: dict[str, Any]
    """Constructor arguments: `build_network({"type": name, **hyperparameters})` builds this network again."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A class with a forward of its own says itself whether graphs can be made of it."""
        super().__init_subclass__(**kwargs)
        for switch in ("replays_graphs", "replays_steps"):
            if switch not in cls.__dict__:
                setattr(cls, switch, False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As for every module; see `replays_graphs` and `replays_steps`."""
        if not torch.compiler.is_compiling() and len(args) == 1 and not kwargs:
            found = replayed(self, args[0], super().__call__)
            if found is not None:
                return found
        return super().__call__(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles of a network have no graphs."""
        return {name: value for name, value in self.__dict__.items() if name != KEPT_AS}

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """As for every module; a network that leaves the GPU gives the memory of its graphs back."""
        moved = super()._apply(*args, **kwargs)
        if not any(parameter.is_cuda for parameter in self.parameters()):
            forget(self)
        return moved

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that an optimiser must not decay."""
        return no_weight_decay_names(self)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the blocks in place (arguments as for torch.compile).

        All blocks of one width share the compiled code, so this takes seconds where compiling the whole network,
        which is these blocks written out many times, takes minutes.
        """
        # One piece of code serves every block; each width, type and mode of a network counts as a recompilation of it.
        self.replays_graphs = self.replays_steps = False  # of other code; `Restorer` has graphs for it
        forget(self)
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
        for module in self.modules():
            if isinstance(module, self.block_types):
                module.compile(*args, **kwargs)

    def forward_features(self, x: Tensor) -> Tensor:
        """The features (B, C, H, W) of an image (B, in_channels, H, W), as they are before the head, of its size."""
        raise NotImplementedError(f"{type(self).__name__} has no forward_features")

    def check_input(self, x: Tensor) -> None:
        """Raise UserError when (B, C, H, W) does not have this network's number of channels."""
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise UserError(
                f"{type(self).__name__} takes images of {self.in_channels} channel(s) as (B, C, H, W), "
                f"but the input has shape {tuple(x.shape)}"
            )


class Traits(NamedTuple):
    """What is to be known of a network before it is applied to images."""

    scale: int
    in_channels: int
    size_multiple: int


def traits_of(network: nn.Module) -> Traits:
    """What a network says of itself; one that says nothing takes colour of any size and keeps it.

    Raises UserError for attributes that are no whole numbers above 0.
    """
    usual = Traits(scale=1, in_channels=3, size_multiple=1)
    traits = usual._replace(**{name: getattr(network, name) for name in usual._fields if hasattr(network, name)})
    for name, value in traits._asdict().items():
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{type(network).__name__}.{name} is {value!r}; it must be a whole number of at least 1")
    return traits


def hyperparameters_of(network: nn.Module) -> dict[str, Any]:
    """The constructor arguments that a network keeps; none where it keeps none."""
    found = getattr(network, "hyperparameters", {})
    return dict(found) if isinstance(found, Mapping) else {}


def constructor_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters out of a constructor's `locals()`, taken in its first line; tuples become lists."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in arguments.items()
        if key not in ("self", "__class__")
    }
