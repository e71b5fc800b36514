"""The networks that are compared: the paper's classic, light and U-Net ones, and SwinIR of the same size classes."""

from collections.abc import Callable

import torch
from torch import nn

from mambair.archs import build_network
from mambair.errors import UserError

CLASSIC = {
    "type": "MambaIR",
    "upscale": 2,
    "embed_dim": 180,
    "depths": [6] * 6,
    "d_state": 16,
    "mlp_ratio": 2.0,
    "upsampler": "pixelshuffle",
}
LIGHT = {
    "type": "MambaIR",
    "upscale": 2,
    "embed_dim": 60,
    "depths": [6, 6, 6, 6],
    "d_state": 10,
    "mlp_ratio": 1.2,
    "upsampler": "pixelshuffledirect",
}
V2_LIGHT = {
    "type": "MambaIRv2Light",
    "upscale": 2,
    "embed_dim": 48,
    "depths": [5] * 4,
    "num_heads": [4] * 4,
    "d_state": 8,
    "inner_rank": 32,
    "num_tokens": 64,
    "mlp_ratio": 1.0,
    "upsampler": "pixelshuffledirect",
}
V2_BASE = {
    "type": "MambaIRv2",
    "upscale": 2,
    "embed_dim": 174,
    "depths": [6] * 6,
    "num_heads": [6] * 6,
    "d_state": 16,
    "inner_rank": 64,
    "num_tokens": 128,
    "mlp_ratio": 2.0,
    "upsampler": "pixelshuffle",
}
UNET = {"type": "MambaIRUNet", "dim": 48, "num_blocks": [4, 6, 6, 8], "mlp_ratio": 1.5}

SWINIR_CLASSIC = {"embed_dim": 180, "depths": [6] * 6, "num_heads": [6] * 6, "upsampler": "pixelshuffle"}
SWINIR_LIGHT = {"embed_dim": 60, "depths": [6] * 4, "num_heads": [6] * 4, "upsampler": "pixelshuffledirect"}


def build_mambair_light() -> nn.Module:
    """MambaIR-light x2."""
    return build_network(LIGHT)


def build_swinir(options: dict, size: int | tuple[int, int] = 64) -> nn.Module:
    """SwinIR x2, by spandrel. It keeps the masks of its windows for images of `size` and makes others in each pass."""
    try:
        from spandrel.architectures.SwinIR import SwinIR
    except ImportError as error:
        raise UserError("the comparison with SwinIR needs spandrel: pip install spandrel") from error
    return SwinIR(upscale=2, img_size=size, window_size=8, mlp_ratio=2, **options)


def build_swinir_light() -> nn.Module:
    """SwinIR-light x2, by spandrel."""
    return build_swinir(SWINIR_LIGHT)


def make_forward(network: nn.Module, image: torch.Tensor) -> Callable[[], None]:
    """One inference pass, in evaluation mode."""

    def forward() -> None:
        network.eval()
        with torch.no_grad():
            network(image)

    return forward


def make_forward_backward(network: nn.Module, image: torch.Tensor) -> Callable[[], None]:
    """One pass with the gradients of all parameters, in training mode."""

    def forward_backward() -> None:
        network.train()
        network.zero_grad(set_to_none=True)
        network(image).sum().backward()

    return forward_backward
