"""The networks, and their weights.

`build_network(options)` builds a network from an option block; `load_network(path)` from a weight file alone.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from mambair.archs.discriminator_arch import UNetDiscriminatorSN
from mambair.archs.mambair_arch import MambaIR
from mambair.archs.mambair_unet_arch import MambaIRUNet
from mambair.archs.network import RestorationNetwork
from mambair.archs.state_files import read_state_dict
from mambair.archs.weights import detect_architecture, load_network, load_weights, save_weights
from mambair.registry import ARCHS

__all__ = [
    "MambaIR",
    "MambaIRUNet",
    "RestorationNetwork",
    "UNetDiscriminatorSN",
    "build_network",
    "detect_architecture",
    "load_network",
    "load_weights",
    "read_state_dict",
    "save_weights",
]


def build_network(options: Mapping[str, Any], where: str = "network_g") -> nn.Module:
    """Build the network that `{'type': name, **keywords}` describes; `where` is the option block named in errors."""
    return ARCHS.build(options, where=where)
