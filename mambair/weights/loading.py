"""Weights and networks together: which network a file holds, loading it, saving it.

Nothing here ever leaves a key out silently: `load_weights` either loads everything, or returns the names of the
head's keys that a warm start skips, or raises.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mambair.archs.build import build_network
from mambair.archs.network import hyperparameters_of
from mambair.archs.spandrel_archs import SpandrelNetwork
from mambair.errors import UserError
from mambair.imaging.headers import printable
from mambair.registry import ARCHS
from mambair.weights.detection import (
    describe,
    is_mambair,
    is_mambair_unet,
    is_mambair_v2,
    mambair_options,
    mambair_v2_options,
    unet_options,
)
from mambair.weights.foreign import foreign_name
from mambair.weights.sources import find_weights
from mambair.weights.state_files import read_weights_file, save_state_dict
from mambair.weights.wrapping import find_set, unwrap, weight_sets

logger = logging.getLogger(__name__)

HEAD_PREFIX = "upsample."
"""Keys that a change of scale replaces; a warm start may skip these and no others."""
PLUGIN_KEY = "plugin"
"""In the options of a network that a weight file carries: the plug-in that has its code."""
LISTED_KEYS = 8
"""Keys that an error names; the others are counted."""


def detect_architecture(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Options for `build_network` read off a bare state dict's keys and shapes: {'type': 'MambaIR', 'upscale': 2, ...}.

    Raises UserError that names the network, where it is known, when the weights are not MambaIR's.
    """
    try:
        if is_mambair(state_dict):
            return mambair_options(state_dict)
        if is_mambair_unet(state_dict):
            return unet_options(state_dict)
        if is_mambair_v2(state_dict):
            return mambair_v2_options(state_dict)
    except KeyError as error:
        raise UserError(f"these weights look like MambaIR's, but are not whole: {error.args[0]} is missing") from None
    except (ArithmeticError, ValueError, IndexError) as error:
        found = f" ({error})" if isinstance(error, ValueError) and "window_size" in str(error) else ""
        raise UserError(
            f"these weights look like MambaIR's, but their shapes fit none{found}; the file is damaged"
        ) from None
    name = foreign_name(state_dict)
    if name is None:
        keys = ", ".join(list(state_dict)[:3])
        raise UserError(f"these weights are of no network known here (keys such as {keys})")
    raise UserError(
        f"these weights are of {name}, not of MambaIR; networks that spandrel knows can be tested with "
        "network_g: {type: spandrel, path: FILE}"
    )


def load_network(path: str | Path, param_key: str | None = None, **overrides: Any) -> nn.Module:
    """Build the network that a weight file holds and load it; in eval mode, on the CPU, float32.

    `path` may be all that `find_weights` takes: a file, a name of `mambair weights list`, an hf:// address. Options
    come from the file's metadata if it was saved here, else from its keys and shapes. `overrides` replace options that
    shapes cannot tell, such as img_range=255.0. `param_key` as in `read_state_dict`. Raises UserError naming what the
    file is when it holds no MambaIR.
    """
    path = find_weights(path)
    content, options = read_weights_file(path)
    state = unwrap(content, path, param_key)
    if options is None:
        try:
            options = detect_architecture(state)
        except UserError as error:
            raise UserError(f"weights {path}: {error}") from None
    options = checked_plugin(options, path)
    network = build_network({**options, **overrides}, where=f"weights {path}")
    load_state_dict(network, state, path)
    return network.eval()


def load_weights(
    network: nn.Module,
    path: str | Path,
    strict: bool = True,
    param_key: str | None = None,
    where: str = "network_g",
) -> list[str]:
    """Load a weight file into `network`. Returns the keys that were skipped: none with `strict`.

    Args:
        strict: with False, weights of another scale may start this network (a warm start): the keys of the head
            (`upsample.*`) that differ are skipped, and nothing else.
        param_key: which of 'params' and 'params_ema' to take; when the file has only the other one, that is taken
            with a warning. None takes the averaged ones where there are any, and says so in the log.
        where: the option block that the network was built from, for messages.

    Raises:
        UserError: the file cannot be read, or does not fit; the message says which network it holds and which option
            would make it fit.
    """
    content, _ = read_weights_file(path)
    sets = weight_sets(content)
    if sets and param_key is not None and find_set(sets, param_key) is None:
        first = next(iter(sets))
        logger.warning("weights %s: there is no '%s' in the file; '%s' is used", path, param_key, first)
        param_key = first
    state = unwrap(content, path, param_key, wanted=network.state_dict().keys())
    return load_state_dict(network, state, path, strict, where)


def load_state_dict(
    network: nn.Module,
    state: Mapping[str, Tensor],
    path: str | Path,
    strict: bool = True,
    where: str = "network_g",
) -> list[str]:
    """`load_weights` from a state dict at hand; `path` is the file to blame.

    Weights that are not finite numbers are refused: all that they restore is black.
    """
    own = network.state_dict()
    misfits = [
        key for key in {**own, **state} if key not in own or key not in state or own[key].shape != state[key].shape
    ]
    if misfits and (strict or not all(key.startswith(HEAD_PREFIX) for key in misfits)):
        raise UserError(f"weights {path}{_why_not(network, state, misfits, where)}")
    fitting = {key: _as(own[key], key, value, path) for key, value in state.items() if key not in misfits}
    refuse_nonfinite(fitting, path)
    network.load_state_dict({**own, **fitting})
    return misfits


def _as(wanted: Tensor, key: str, value: Tensor, path: str | Path) -> Tensor:
    """A weight in the type of the network's, in which it may have become infinite.

    Raises UserError for integers where the network has none, and for complex numbers.
    """
    value = value.dequantize() if value.is_quantized else value.to_dense()
    if value.is_floating_point() != wanted.is_floating_point() or value.is_complex():
        kind = str(value.dtype).removeprefix("torch.")
        raise UserError(
            f"weights {path}: {printable(key)} holds numbers of {kind}, which are no weights of this network"
        )
    return value.to(wanted.dtype)


def refuse_nonfinite(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise UserError for weights of which one is NaN or infinite."""
    bad = [key for key, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        named = ", ".join([*map(printable, bad[:3]), *(["..."] if len(bad) > 3 else [])])
        raise UserError(
            f"weights {path}: {len(bad)} of {len(state)} tensors hold numbers that are not finite ({named}): the "
            "training has diverged, or the file is damaged; use an earlier checkpoint, or fetch the file again"
        )


def save_weights(network: nn.Module, path: str | Path, params_ema: Mapping[str, Tensor] | None = None) -> None:
    """Write a network's weights atomically: {'params', 'params_ema' if given} in a .pth, or one set in a .safetensors.

    The network's options go along, so that `load_network(path)` rebuilds it, img_range included. For the keys of
    published files use a .pth; other programs read it as one of theirs.
    """
    save_state_dict(path, network_options(network), network.state_dict(), params_ema)


def network_options(network: nn.Module) -> dict[str, Any] | None:
    """What `build_network` builds this network from again; None for spandrel's, which other programs recognise."""
    if isinstance(network, SpandrelNetwork):
        return None
    block = getattr(network, "option_block", None)
    if block is None:
        return {"type": type(network).__name__, **hyperparameters_of(network)}
    plugin = ARCHS.plugin_of(block["type"])
    return block | ({PLUGIN_KEY: plugin} if plugin else {})


def checked_plugin(options: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """The options of a file's network without the name of its plug-in.

    Raises UserError where that has not been loaded: a weight file does not make any code run.
    """
    plugin = options.get(PLUGIN_KEY)
    if plugin is not None and options["type"] not in ARCHS:
        name = printable(str(plugin))
        remedy = f"--plugin {name}" if name.endswith(".py") else f"install it, or pass --plugin {name}"
        raise UserError(
            f"weights {path}: these are of {printable(options['type'])}, a network of the plug-in {name}, which is not "
            f"loaded; if you trust its code: {remedy}"
        )
    return {key: value for key, value in options.items() if key != PLUGIN_KEY}


def architecture_of(network: nn.Module) -> str:
    """The name of a network's architecture, for messages."""
    return type(network.model if isinstance(network, SpandrelNetwork) else network).__name__


def _why_not(network: nn.Module, state: Mapping[str, Tensor], misfits: list[str], where: str) -> str:
    """The rest of the sentence 'weights FILE ...' for weights that do not fit the network."""
    own = network.state_dict()
    wanted = detect_options(own)
    found = detect_options(state)
    # The head's keys come last: beside others they are not what is wrong with a warm start.
    misfits = sorted(misfits, key=lambda key: key.startswith(HEAD_PREFIX))
    listed = ", ".join(map(printable, misfits[:LISTED_KEYS]))
    if len(misfits) > LISTED_KEYS:
        listed += f" and {len(misfits) - LISTED_KEYS} more"
    keys = f"these keys are missing, extra or of another shape: {listed}"
    if found is None:
        name = foreign_name(state)
        if name is not None and wanted is not None:
            return f" are of {name}, but {where} is {describe(wanted)}; use other weights ({keys})"
    elif wanted is not None and found != wanted:
        remedy = _remedy(found, wanted, misfits, where)
        return f" are {describe(found)}, but {where} is {describe(wanted)}: {remedy} ({keys})"
    return f" do not fit {where} ({architecture_of(network)}); {keys}"


def detect_options(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """`detect_architecture`, or None where that raises."""
    try:
        return detect_architecture(state)
    except UserError:
        return None


def _remedy(found: Mapping[str, Any], wanted: Mapping[str, Any], misfits: list[str], where: str) -> str:
    if found["type"] != wanted["type"]:
        return f"set {where}.type: {found['type']}, or use other weights"
    changes = [f"{where}.{key}: {value}" for key, value in found.items() if wanted.get(key) != value]
    changes += [f"{where}.{key} to its default" for key in wanted if key not in found]
    remedy = f"set {', '.join(changes)}, or use other weights"
    if all(key.startswith(HEAD_PREFIX) for key in misfits):
        remedy += ", or set path.strict_load_g: false to start from these without the head"
    return remedy
