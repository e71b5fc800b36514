"""The networks, and their weights.

`build_network(options)` builds a network from an option block; `load_network(path)` from a weight file alone.
"""

from mambair.archs.build import build_network
from mambair.archs.discriminator_arch import UNetDiscriminatorSN
from mambair.archs.edsr_arch import EDSR
from mambair.archs.mambair_arch import MambaIR
from mambair.archs.mambair_unet_arch import MambaIRUNet
from mambair.archs.network import RestorationNetwork
from mambair.archs.state_files import read_state_dict
from mambair.archs.weights import detect_architecture, load_network, load_weights, save_weights

__all__ = [
    "EDSR",
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
