"""The networks that are compared: the light x2 ones of the paper's Table 4."""

from collections.abc import Callable

import torch
from torch import nn

from mambair.archs import build_network
from mambair.errors import UserError

LIGHT = {
    "type": "MambaIR",
    "upscale": 2,
    "embed_dim": 60,
    "depths": [6, 6, 6, 6],
    "d_state": 10,
    "mlp_ratio": 1.2,
    "upsampler": "pixelshuffledirect",
}


def build_mambair_light() -> nn.Module:
    """MambaIR-light x2."""
    return build_network(LIGHT)


def build_swinir_light() -> nn.Module:
    """SwinIR-light x2, by spandrel."""
    try:
        from spandrel.architectures.SwinIR import SwinIR
    except ImportError as error:
        raise UserError("the comparison with SwinIR needs spandrel: pip install spandrel") from error
    return SwinIR(
        upscale=2,
        img_size=64,
        window_size=8,
        depths=[6, 6, 6, 6],
        embed_dim=60,
        num_heads=[6, 6, 6, 6],
        mlp_ratio=2,
        upsampler="pixelshuffledirect",
    )


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
