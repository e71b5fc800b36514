"""MambaIR for programs that load networks through spandrel, such as chaiNNer.

from mambair.integrations.spandrel import install
install()
model = spandrel.ModelLoader().load_from_file("MambaIR_SR_x2.pth")
"""

from typing import Any

import spandrel
from spandrel import ImageModelDescriptor, ModelTiling, SizeRequirements, StateDict
from torch import nn

from mambair.archs import build_network
from mambair.weights.detection import is_mambair, is_mambair_unet, is_mambair_v2
from mambair.weights.loading import detect_architecture


class MambaIRArch(spandrel.Architecture[nn.Module]):
    """Classic, light and real-world super-resolution, denoising, JPEG artifact removal."""

    def __init__(self) -> None:
        super().__init__(id="MambaIR", detect=is_mambair)

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[nn.Module]:
        options = detect_architecture(state_dict)
        return _describe(self, options, state_dict, _tags(options))


class MambaIRv2Arch(spandrel.Architecture[nn.Module]):
    """MambaIRv2 and MambaIRv2Light: the same tasks, but for photos of unknown quality."""

    def __init__(self) -> None:
        super().__init__(id="MambaIRv2", detect=is_mambair_v2)

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[nn.Module]:
        options = detect_architecture(state_dict)
        return _describe(self, options, state_dict, [*_tags(options), f"{options['window_size']}w"])


class MambaIRUNetArch(spandrel.Architecture[nn.Module]):
    """Real image denoising."""

    def __init__(self) -> None:
        super().__init__(id="MambaIRUNet", detect=is_mambair_unet)

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[nn.Module]:
        options = detect_architecture(state_dict)
        return _describe(self, options, state_dict, [f"{options['dim']}dim", f"{sum(options['num_blocks'])}nb"])


def _tags(options: dict[str, Any]) -> list[str]:
    kinds = {"pixelshuffle": "classic", "pixelshuffledirect": "light", "nearest+conv": "real-world"}
    kind = kinds.get(options["upsampler"], "restoration")
    return [kind, f"{options['embed_dim']}dim", f"{sum(options['depths'])}nb"]


def _describe(
    architecture: spandrel.Architecture[nn.Module], options: dict[str, Any], state_dict: StateDict, tags: list[str]
) -> ImageModelDescriptor[nn.Module]:
    network = build_network(options)
    return ImageModelDescriptor(
        network,
        state_dict,
        architecture=architecture,
        purpose="Restoration" if network.scale == 1 else "SR",
        tags=tags,
        supports_half=False,  # features of trained networks may exceed fp16's range
        supports_bfloat16=True,  # the scan computes in fp32 whatever its inputs
        scale=network.scale,
        input_channels=network.in_channels,
        output_channels=options.get("out_channels", network.in_channels),
        size_requirements=SizeRequirements(
            multiple_of=1 if options["type"].startswith("MambaIRv2") else network.size_multiple
        ),
        tiling=ModelTiling.SUPPORTED,
    )


def install(registry: spandrel.ArchRegistry = spandrel.MAIN_REGISTRY) -> None:
    """Register MambaIR, MambaIRv2 and MambaIRUNet in spandrel's main registry, or another, which then loads them.

    Calling it again changes nothing.
    """
    registry.add(
        spandrel.ArchSupport.from_architecture(MambaIRArch()),
        spandrel.ArchSupport.from_architecture(MambaIRUNetArch()),
        spandrel.ArchSupport.from_architecture(MambaIRv2Arch()),
        ignore_duplicates=True,
    )
