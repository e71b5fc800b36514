"""Networks from option blocks."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from mambair.archs.plain_modules import adopt
from mambair.archs.spandrel_archs import register_from_spandrel
from mambair.registry import ARCHS, is_foreign

FROM_FILE = "spandrel"
"""The type of a network that a weight file of another project describes."""


def build_network(options: Mapping[str, Any], where: str = "network_g", *, restores: bool = True) -> nn.Module:
    """Build the network that `{'type': name, **keywords}` describes; `where` is the option block named in errors.

    Names are MambaIR, MambaIRUNet, EDSR, UNetDiscriminatorSN, `spandrel` (with `path`: any file that spandrel loads)
    and, where spandrel is installed, its architectures: SwinIR, HAT, RCAN ..., and those of plug-ins, any nn.Module,
    which are given the attributes that networks have here; `restores`: whether that includes a scale (a discriminator
    has none). Raises UserError for what cannot be built.
    """
    name = options.get("type")
    if name == FROM_FILE:
        import mambair.weights.other_networks  # noqa: F401  (registers it: reading files is done above this wing)
    elif isinstance(name, str) and name not in ARCHS:
        register_from_spandrel(name, where)
    network = ARCHS.build(options, where=where)
    entry = ARCHS.get(options["type"], where)
    return adopt(network, options, entry, where, restores=restores) if is_foreign(entry) else network
