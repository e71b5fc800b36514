"""What weight files put around a network's weights: sets by name, and prefixes before and inside their keys.

{"params": {...}, "params_ema": {...}}                      BasicSR
{"state_dict": {"model.net.conv_first.weight": ...,
                "loss.vgg.0.weight": ...}, "epoch": 3}      PyTorch Lightning
{"generator": {"params": {...}}, "discriminator": ...}      others
"""

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mambair.errors import UserError
from mambair.weights.foreign import foreign_name

AVERAGED = ("params_ema",)
"""Names of a set of averaged weights, best first; whatever else is called an average follows them."""
PLAIN = (
    *("params", "state_dict", "model_state_dict", "model", "generator", "net_g", "netG", "network_g", "net", "network"),
    *("generator_state_dict", "G", "weights"),
)
"""Names of a set of weights as they were trained last, best first."""

PREFIXES = ("module.", "netG.", "net_g.", "model.", "net.", "generator.", "network.")
"""What stands before every key of a network that is not known here, if it stands before all of them."""

logger = logging.getLogger(__name__)

# A key that every network of these kinds has at its beginning; what stands before it is a prefix.
_ANCHORS = ("conv_first.weight", "patch_embed.proj.weight")
# Put by torch.compile, activation checkpointing and FSDP before the keys of whatever part they wrap.
_INSIDE = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")
_NOT_OF_THE_NETWORK = re.compile(
    r"(n_averaged$|(loss|losses|criterion|perceptual|vgg|lpips|metrics?|discriminator|net_?d)\w*\.)", re.IGNORECASE
)
_COUNTERS = re.compile(r"(^|\.)total_(ops|params)$")
"""What thop and its like leave in every part of a network that they have counted the operations of."""
_AVERAGE = re.compile(r"(^|[_-])(ema|averaged?|avg|swa|shadow)(?=$|[_-])", re.IGNORECASE)
_OTHER_SETS = re.compile(r"optim|sched|scaler|discriminator|net_?d|loss|criterion", re.IGNORECASE)
_TRAINING_STATE = ("optimizers", "optimizer_state_dict")


def weight_sets(content: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The sets of weights in a file by their names, best first, empty ones left out; {} for a bare state dict."""
    found: dict[str, Mapping[str, Any]] = {}
    averaged = [str(name) for name in content if is_averaged(str(name)) and not _OTHER_SETS.search(str(name))]
    for name in dict.fromkeys((*AVERAGED, *averaged, *PLAIN)):
        value = content.get(name)
        if isinstance(value, Mapping) and value:
            inner = weight_sets(value)
            found |= {f"{name}.{key}": each for key, each in inner.items()} or _if_weights(name, value)
    if not found and not _has_tensors(content):
        others = {
            str(name): weight_sets(value) or {"": value}
            for name, value in content.items()
            if isinstance(value, Mapping) and not _OTHER_SETS.search(str(name))
        }
        others = {name: inner for name, inner in others.items() if any(map(_has_tensors, inner.values()))}
        if len(others) > 1:  # a generator and its discriminator, say
            others = {name: inner for name, inner in others.items() if any(map(_has_anchor, inner.values()))}
        if len(others) == 1:
            ((name, inner),) = others.items()
            found = {f"{name}.{key}".rstrip("."): each for key, each in inner.items()}
    return {name: found[name] for name in sorted(found, key=lambda name: not is_averaged(name))}


def _if_weights(name: str, value: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The set by its name; none where an average has numbers, such as its decay, and no weights."""
    return {} if is_averaged(name) and not _has_tensors(value) else {name: value}


def _has_anchor(state: Mapping[Any, Any]) -> bool:
    return any(str(key).endswith(_ANCHORS) for key in state)


def _has_tensors(state: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) and isinstance(key, str) for key, value in state.items())


def is_averaged(name: str) -> bool:
    """Whether a set, or what stands under a prefix, is called averaged weights."""
    return any(_AVERAGE.search(part) for part in name.split("."))


def unwrap(
    content: Mapping[str, Any],
    path: str | Path,
    param_key: str | None = None,
    wanted: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """The bare state dict in what `read_weights_file` returned.

    Args:
        param_key: picks one of several sets ('params' or 'params_ema'). By default the averaged ones are taken where a
            file has both, which is logged.
        wanted: the keys of the network that the weights are for, where it is known.

    Raises UserError when there are no weights inside.
    """
    sets = weight_sets(content)
    if not sets and any(key in content for key in _TRAINING_STATE):
        raise UserError(
            f"weights {path}: this is a training state, for path.resume_state; the weights are in models/net_g_*.pth"
        )
    name = next(iter(sets), None)
    if sets and param_key is not None:
        name = find_set(sets, param_key)
        if name is None:
            raise UserError(f"weights {path}: there is no '{param_key}' in the file; it has {', '.join(sets)}")
    elif name is not None and len(sets) > 1 and is_averaged(name):
        others = ", ".join(list(sets)[1:])
        logger.info("weights %s: the averaged weights (%s) are taken; the file has %s too", path, name, others)
    chosen = content if name is None else sets[name]
    state = {str(key): value for key, value in chosen.items() if isinstance(value, Tensor)}
    if not state:
        keys = ", ".join(list(map(str, content))[:5])
        raise UserError(f"weights {path}: there are no weights in the file (its keys: {keys})")
    return without_prefix(state, path, wanted)


def find_set(names: Iterable[str], param_key: str) -> str | None:
    """The name of the set that `param_key` means; None where there is none."""
    return next((name for name in names if param_key in (name, name.rpartition(".")[2], name.partition(".")[0])), None)


def without_prefix(
    state: Mapping[str, Tensor], path: str | Path, wanted: Collection[str] | None = None
) -> dict[str, Tensor]:
    """The weights of one network under their own keys, whatever a trainer put before and beside them.

    Of several networks of the same keys, an averaged one is taken.
    """
    state = {_INSIDE.sub("", key): value for key, value in state.items()}
    prefix = _find_prefix(state, wanted)
    if prefix is None:
        return _without_common_prefix(state)
    own = {
        key.removeprefix(prefix): value
        for key, value in state.items()
        if key.startswith(prefix) and not _COUNTERS.search(key)
    }
    if not prefix:
        own = {key: value for key, value in own.items() if _is_wanted(key, wanted) and not _is_beside(key, own)}
    left_out = len(state) - len(own) - ("n_averaged" in state)
    if left_out:
        named = f"under '{prefix}'" if prefix else "of the network"
        logger.info("weights %s: %d weights %s are taken, %d others are left out", path, len(own), named, left_out)
    return own


def _find_prefix(state: Mapping[str, Tensor], wanted: Collection[str] | None) -> str | None:
    """What stands before the keys of the network; None where that cannot be told."""
    anchors = [*([next(iter(wanted))] if wanted else []), *_ANCHORS]
    found = {
        key.removesuffix(anchor): sum(key.removesuffix(anchor) + own in state for own in wanted or ())
        for anchor in anchors
        for key in state
        if key == anchor or key.endswith(f".{anchor}")
    }
    best = [prefix for prefix, shared in found.items() if shared == max(found.values())]
    if not best:
        return None
    return min(best, key=lambda prefix: (not is_averaged(prefix.removesuffix(".")), bool(prefix)))


def _is_wanted(key: str, wanted: Collection[str] | None) -> bool:
    return (wanted is not None and key in wanted) or not _NOT_OF_THE_NETWORK.match(key)


def _is_beside(key: str, state: Mapping[str, Tensor]) -> bool:
    """Whether a key belongs to a second copy of the network: ema.conv_first.weight beside conv_first.weight."""
    first, dot, rest = key.partition(".")
    return bool(dot) and rest in state and any(f"{first}.{anchor}" in state for anchor in _ANCHORS)


def _without_common_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without known prefixes that all keys have; names of a network that is known by its keys stay as they are."""
    if any(key.startswith("module.") for key in state):
        state.pop("n_averaged", None)  # the counter of torch.optim.swa_utils.AveragedModel
    while foreign_name(state) is None:
        prefix = next((prefix for prefix in PREFIXES if all(key.startswith(prefix) for key in state)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
