"""The networks: `build_network(options)` builds one from an option block.

`load_network` and what else concerns weight files lies in `mambair.weights`, which stands above this wing; the names
are known here too.
"""

from typing import TYPE_CHECKING, Any

from mambair.archs.blocks import RSSB, RSSG, VSSM
from mambair.archs.build import build_network
from mambair.archs.discriminator_arch import UNetDiscriminatorSN
from mambair.archs.edsr_arch import EDSR
from mambair.archs.mambair_arch import MambaIR
from mambair.archs.mambair_unet_arch import MambaIRUNet
from mambair.archs.mambair_v2_arch import MambaIRv2, MambaIRv2Light
from mambair.archs.network import RestorationNetwork
from mambair.archs.ss2d import SS2D

if TYPE_CHECKING:
    from mambair.weights.loading import detect_architecture, load_network, load_weights, save_weights
    from mambair.weights.state_files import read_state_dict

__all__ = [
    "EDSR",
    "RSSB",
    "RSSG",
    "SS2D",
    "VSSM",
    "MambaIR",
    "MambaIRUNet",
    "MambaIRv2",
    "MambaIRv2Light",
    "RestorationNetwork",
    "UNetDiscriminatorSN",
    "build_network",
    "detect_architecture",
    "load_network",
    "load_weights",
    "read_state_dict",
    "save_weights",
]


def __getattr__(name: str) -> Any:
    """What is known of weight files under these names, imported when it is asked for."""
    if name in ("detect_architecture", "load_network", "load_weights", "save_weights"):
        import mambair.weights.loading as loading

        return getattr(loading, name)
    if name == "read_state_dict":
        from mambair.weights.state_files import read_state_dict

        return read_state_dict
    raise AttributeError(f"module 'mambair.archs' has no attribute '{name}'")
