"""Somebody's own `nn.Module` as a network of this project: what the others are asked for is added to it."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mambair.errors import UserError
from mambair.runtime.foreign_code import foreign_code

SCALE_KEYWORDS = ("upscale", "scale", "upscale_factor", "scale_factor", "sf")
"""How constructors call the factor by which a network enlarges images."""
CHANNEL_KEYWORDS = ("in_channels", "in_chans", "num_in_ch", "in_ch", "in_nc", "img_channels", "inp_channels")
"""How they call the channels of the image."""
PROBE_SIDE = 64
"""Pixels of the image that shows the scale of a network that does not tell it; windows of attention divide it."""


def adopt(
    network: Any, options: Mapping[str, Any], build: Callable[..., Any], where: str, *, restores: bool
) -> nn.Module:
    """Give a network the attributes that are read here: `scale`, `in_channels`, `size_multiple`, `option_block`.

    What it has is kept; those that are not to restore images (`restores`) need the last one alone. Scale and channels
    come from keywords of its constructor with usual names, else from what it makes of a small image. `option_block`
    stands in checkpoints, so that the network can be built again.

    Raises UserError for what is no nn.Module, and for a network whose scale cannot be found out.
    """
    if not isinstance(network, nn.Module):
        raise UserError(f"{where}: {options['type']} gave a {type(network).__name__}; a network is a torch.nn.Module")
    extra = vars(network)  # nn.Module's own way of setting attributes knows only what belongs to networks
    extra.setdefault("option_block", dict(options))
    if not restores:
        return network
    extra.setdefault("size_multiple", getattr(network, "size_multiple", 1))
    if not hasattr(network, "in_channels"):
        extra["in_channels"] = keyword_value(build, options, CHANNEL_KEYWORDS) or first_channels(network)
    if not hasattr(network, "scale"):
        channels = int(getattr(network, "in_channels", 3))
        extra["scale"] = keyword_value(build, options, SCALE_KEYWORDS) or probed_scale(network, channels, where)
    for name in ("scale", "in_channels", "size_multiple"):
        value = getattr(network, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(
                f"{where}: {options['type']} has {name} = {describe(value)}, which must be a whole number of at least "
                "1 here; rename what is called so, or set it in __init__"
            )
    return network


def describe(value: Any) -> str:
    """An attribute's value for a message."""
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)


def keyword_value(build: Callable[..., Any], options: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """The value of the first of these keywords that a constructor has, given or by default; None without one."""
    parameters = inspect.signature(build).parameters
    for name in names:
        if name in parameters:
            value = options.get(name, parameters[name].default)
            return value if isinstance(value, int) else None
    return None


def first_channels(network: nn.Module) -> int:
    """Input channels of the first convolution; colour where there is none."""
    return next((module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d)), 3)


def probed_scale(network: nn.Module, channels: int, where: str) -> int:
    """How many times larger the network makes a small image."""
    image = torch.zeros(1, channels, PROBE_SIDE, PROBE_SIDE)
    was_training = network.training
    name = type(network).__name__
    what = f"{where}: {name} does not tell its scale (self.scale in __init__), and with an image {tuple(image.shape)}"
    try:
        with torch.no_grad(), foreign_code(what):
            result = network.eval()(image)
    finally:
        network.train(was_training)
    if not isinstance(result, Tensor) or result.ndim != 4 or result.shape[2] % PROBE_SIDE:
        given = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise UserError(f"{where}: {name} makes {given} of an image {tuple(image.shape)}")
    return result.shape[2] // PROBE_SIDE
