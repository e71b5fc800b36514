"""Applying a network to images of any size, as validation and tests do.

Shapes: B images, C channels, H x W pixels of the low-quality input, s the scale of the network.
"""

import torch
from torch import Tensor, nn

from mambair.archs.network import traits_of
from mambair.archs.replay import paused
from mambair.inference.ensemble import self_ensemble
from mambair.inference.tiling import TileRule, restore_tiled


class Restoration:
    """The settings under which a network is judged.

    Args:
        tile: "published" (the rule behind the published numbers), None (whole images), or the side of blended tiles.
        ensemble: average over the eight flips and transpositions (MambaIR+ in the paper).
        amp_dtype: autocast to it, None for full precision.
    """

    def __init__(
        self, tile: TileRule = "published", ensemble: bool = False, amp_dtype: torch.dtype | None = None
    ) -> None:
        self.tile = tile
        self.ensemble = ensemble
        self.amp_dtype = amp_dtype

    @paused()  # a network that is judged while it is trained takes no memory for long
    @torch.inference_mode()
    def __call__(self, network: nn.Module, lq: Tensor) -> Tensor:
        """Restore (B, C, H, W) in [0, 1] -> float32 (B, C, s*H, s*W), not clipped. The network's mode is kept."""

        def forward(x: Tensor) -> Tensor:
            with torch.autocast(x.device.type, self.amp_dtype, enabled=self.amp_dtype is not None):
                return network(x).float()

        def tiled(x: Tensor) -> Tensor:
            return restore_tiled(forward, x, traits_of(network).scale, self.tile)

        was_training = network.training
        network.eval()
        try:
            return self_ensemble(tiled, lq) if self.ensemble else tiled(lq)
        finally:
            network.train(was_training)
