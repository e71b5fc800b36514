"""Weight files of other networks: `type: spandrel` in option files loads any that spandrel knows, and EDSR's."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mambair.archs.edsr_arch import EDSR
from mambair.archs.spandrel_archs import SpandrelNetwork, spandrel_registry, without_warnings
from mambair.errors import UserError
from mambair.registry import ARCHS
from mambair.weights.foreign import foreign_name
from mambair.weights.loading import refuse_nonfinite
from mambair.weights.sources import find_weights
from mambair.weights.state_files import read_state_dict

OFFICIAL_KEYS = (
    (r"^head\.0\.", "conv_first."),
    (r"^body\.(\d+)\.body\.0\.", r"body.\1.conv1."),
    (r"^body\.(\d+)\.body\.2\.", r"body.\1.conv2."),
    (r"^body\.\d+\.(?=weight|bias)", "conv_after_body."),
    (r"^tail\.0\.", "upsample."),
    (r"^tail\.1\.", "conv_last."),
)
"""The names of the authors' files, and those of BasicSR's files, which this network has."""


@ARCHS.register("spandrel")
def load_spandrel(path: str) -> nn.Module:
    """The network in a weight file, of any architecture that spandrel knows, or EDSR, with its weights.

    Raises UserError when spandrel is missing or does not know the file's architecture.
    """
    path = str(find_weights(path))
    state = read_state_dict(path)
    refuse_nonfinite(state, path)
    if is_edsr(state):
        try:
            return load_edsr(state)
        except ValueError as error:
            raise UserError(f"weights {path}: these look like EDSR's, but {error}") from None
    registry = spandrel_registry("spandrel")
    from spandrel import ImageModelDescriptor, UnsupportedModelError

    try:
        with without_warnings():
            descriptor = registry.load(state)
    except UnsupportedModelError:
        raise UserError(f"weights {path}: spandrel does not know the architecture of these weights") from None
    if not isinstance(descriptor, ImageModelDescriptor):
        raise UserError(f"weights {path}: {descriptor.architecture.name} does not restore single images")
    # Padding is ours and keeps gradients; descriptor(x) has neither gradients nor batches.
    return SpandrelNetwork(descriptor.model, descriptor, {"path": str(path)}, descriptor._call_fn).eval()


def is_edsr(state: Mapping[str, Tensor]) -> bool:
    """Whether these are EDSR's weights, under the authors' or BasicSR's names."""
    return foreign_name(state) == "EDSR"


def load_edsr(state: Mapping[str, Tensor]) -> EDSR:
    """The network that these weights are of, in eval mode. Raises ValueError where they are not whole.

    The scale of residuals, which weights do not tell, is the authors': 0.1 in the network of 256 features.
    """
    state = _renamed(state)
    try:
        options = _read_options(state)
    except KeyError as error:
        raise ValueError(f"{error.args[0]} is missing") from None
    network = EDSR(**options)
    wanted = {key: value.shape for key, value in network.state_dict().items()}
    misfits = [key for key in {**wanted, **state} if key not in state or wanted.get(key) != state[key].shape]
    if misfits:
        raise ValueError(f"these keys are missing, extra or of another shape: {', '.join(misfits[:8])}")
    network.load_state_dict(state)
    return network.eval()


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state under BasicSR's names, without the mean that the authors' files hold as convolutions."""
    renamed = {}
    official = "head.0.weight" in state
    for key, value in state.items():
        if key.startswith(("sub_mean.", "add_mean.")):
            continue
        for pattern, replacement in OFFICIAL_KEYS if official else ():
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def _read_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    features, channels = state["conv_first.weight"].shape[:2]
    steps = sum(bool(re.fullmatch(r"upsample\.\d+\.weight", key)) for key in state)
    factor = state["upsample.0.weight"].shape[0] // features
    return {
        "upscale": 3 if factor == 9 else 2**steps,
        "num_in_ch": channels,
        "num_out_ch": state["conv_last.weight"].shape[0],
        "num_feat": features,
        "num_block": len({key.split(".")[1] for key in state if re.match(r"body\.\d+\.conv1\.", key)}),
        "res_scale": 0.1 if features >= 256 else 1.0,
    }
