"""Other networks to compare with, by spandrel: `type: SwinIR` builds one to train.

spandrel is imported only when one of its own is asked for; EDSR, which it lacks, is this package's. Restormer, SRFormer
and others with restrictive licences come from its second package, spandrel_extra_arches. Files of such networks, which
`type: spandrel` loads, are read by `mambair.weights.other_networks`.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mambair.archs.layers import reflect_pad
from mambair.errors import UserError
from mambair.registry import ARCHS

if TYPE_CHECKING:
    from spandrel import ArchRegistry, ArchSupport, ImageModelDescriptor

EXTRA_NAMES = ("AdaCode", "FeMaSR", "M3SNet", "MIRNet2", "MPRNet", "Restormer", "SRFormer")
COMMON_NAMES = (
    *("ATD", "Compact", "CRAFT", "DAT", "DnCNN", "DRCT", "DRUNet", "ESRGAN", "FBCNN", "GRL", "HAT", "IPT"),
    *(
        "NAFNet",
        "OmniSR",
        "PLKSR",
        "RCAN",
        "RealPLKSR",
        "RGT",
        "SAFMN",
        "SCUNet",
        "SPAN",
        "Swin2SR",
        "SwinIR",
        "Uformer",
    ),
)
"""Names that are spandrel's even where it is not installed; with it, all of its architectures can be built."""


class SpandrelNetwork(nn.Module):
    """A network of spandrel's with this project's attributes: (B, C, H, W) in [0, 1] -> (B, C', H scale, W scale).

    Inputs are padded by reflection to the sizes that the network can take, and the result is cropped. In state dicts
    the keys are the network's own, so that its files are the usual ones of its kind.

    Args:
        model: the network.
        descriptor: spandrel's description of it.
        hyperparameters: what `build_network` builds it from again.
        call: runs the model on one image (1, C, H, W), for models that take more than the image; None: `model(x)`.
    """

    def __init__(
        self,
        model: nn.Module,
        descriptor: "ImageModelDescriptor",
        hyperparameters: Mapping[str, Any],
        call: Callable[[nn.Module, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.call = call
        self.hyperparameters = dict(hyperparameters)
        self.size_requirements = descriptor.size_requirements
        self.scale = descriptor.scale
        self.in_channels = descriptor.input_channels
        self.size_multiple = descriptor.size_requirements.multiple_of
        self.register_state_dict_post_hook(_drop_prefix)
        self.register_load_state_dict_pre_hook(_add_prefix)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        pad_width, pad_height = self.size_requirements.get_padding(width, height)
        padded = reflect_pad(x, height + pad_height, width + pad_width)
        x = padded.clone() if padded is x else padded  # RCAN among others writes into its input
        if self.call is None:
            restored = self.model(x)
        else:
            restored = torch.cat([self.call(self.model, image) for image in x.split(1)])
        return restored[:, :, : height * self.scale, : width * self.scale]


def _drop_prefix(module: nn.Module, state: dict[str, Tensor], prefix: str, local_metadata: dict) -> None:
    for key in [key for key in state if key.startswith(f"{prefix}model.")]:
        state[prefix + key.removeprefix(f"{prefix}model.")] = state.pop(key)


def _add_prefix(module: nn.Module, state: dict[str, Tensor], prefix: str, *unused: Any) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[f"{prefix}model.{key.removeprefix(prefix)}"] = state.pop(key)


def register_from_spandrel(name: str, where: str) -> None:
    """Register spandrel's architecture `name` in ARCHS; nothing happens if it has none of this name.

    Raises UserError when `name` is spandrel's and spandrel is missing.
    """
    if name in COMMON_NAMES or name in EXTRA_NAMES:
        registry = spandrel_registry(f"{where}: {name}", extra=name in EXTRA_NAMES)
    else:
        try:
            registry = spandrel_registry(name)
        except UserError:
            return
    for support in registry:
        network_class = getattr(inspect.getmodule(type(support.architecture)), name, None)
        if inspect.isclass(network_class) and issubclass(network_class, nn.Module):
            ARCHS.register(name)(_builder(network_class, support))


def _builder(network_class: type[nn.Module], support: "ArchSupport") -> Callable[..., SpandrelNetwork]:
    """A constructor with the class's keywords that returns a SpandrelNetwork."""

    def build(**keywords: Any) -> SpandrelNetwork:
        with without_warnings():
            model = network_class(**keywords)
            # Loading the fresh weights makes spandrel say which scale, channels and sizes they mean.
            descriptor = support.architecture.load(dict(model.state_dict()))
        return SpandrelNetwork(model, descriptor, keywords)

    build.__signature__ = inspect.signature(network_class)  # type: ignore[attr-defined]
    return build


@contextmanager
def without_warnings() -> Iterator[None]:
    """spandrel's code meets newer versions of PyTorch, which warn of what its users cannot change."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("ignore", "torch.meshgrid")
        yield


def spandrel_registry(wanted: str, extra: bool = False) -> "ArchRegistry":
    """spandrel's architectures, with the extra ones where they are installed; `extra` insists on these."""
    try:
        with without_warnings():
            from spandrel import MAIN_REGISTRY
    except ImportError:
        raise UserError(f"{wanted} needs spandrel; pip install spandrel") from None
    registry = MAIN_REGISTRY.copy()
    try:
        with without_warnings():
            from spandrel_extra_arches import EXTRA_REGISTRY
    except ImportError:
        if extra:
            raise UserError(f"{wanted} needs spandrel_extra_arches; pip install spandrel_extra_arches") from None
    else:
        registry.add(*EXTRA_REGISTRY, ignore_duplicates=True)
    return registry
