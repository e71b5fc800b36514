"""Which channels of the last state-space module are used at all (the paper, Fig. 3b)."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mambair.analysis.networks import STATE_SPACE_MODULES
from mambair.errors import UserError

# A channel counts as active from this part of the strongest one on.
ACTIVE_PART = 0.1


@dataclass(frozen=True)
class ActivationSummary:
    """How evenly channels are used."""

    channels: int
    """Number of channels."""
    active: float
    """Part of the channels whose activation is at least `ACTIVE_PART` of the largest, 0 to 1."""
    effective: float
    """Number of equally strong channels with the same spread: (sum a)^2 / sum a^2."""


def channel_activations(network: nn.Module, images: Iterable[Tensor]) -> np.ndarray:
    """Mean over pixels and images of ReLU(output of the last state-space module), one value per channel.

    Args:
        network: one with at least one VSSM (MambaIR) or ASSM (MambaIRv2).
        images: (C, H, W) tensors in [0, 1] on the network's device; sizes may differ.

    Returns:
        (channels,) float64 array. Raises UserError for a network without one.
    """
    modules = [module for module in network.modules() if isinstance(module, STATE_SPACE_MODULES)]
    if not modules:
        raise UserError(f"{type(network).__name__} has no state-space module to look at; use a MambaIR or MambaIRv2")
    means: list[np.ndarray] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        means.append(output.relu().mean(dim=(0, 1, 2)).double().cpu().numpy())  # (B, H, W, C) -> (C,)

    handle = modules[-1].register_forward_hook(note)
    try:
        with torch.inference_mode():
            for image in images:
                network(image[None])
    finally:
        handle.remove()
    assert means, "no images"
    return np.mean(means, axis=0)


def summarise(activations: np.ndarray) -> ActivationSummary:
    """The figures of an array of channel activations."""
    active = float(np.mean(activations >= ACTIVE_PART * activations.max()))
    square_sum = float(np.square(activations).sum())
    effective = float(activations.sum()) ** 2 / square_sum if square_sum > 0 else 0.0
    return ActivationSummary(len(activations), active, effective)
