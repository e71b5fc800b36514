"""Small networks for the tests of replaying."""

import torch
from torch import nn

from mambair.archs import build_network

MAMBAIR = {
    "type": "MambaIR", "upscale": 2, "embed_dim": 12, "depths": [2], "d_state": 2, "mlp_ratio": 1.0,
    "upsampler": "pixelshuffledirect", "drop_path_rate": 0.5,
}  # fmt: skip
CLASSIC = MAMBAIR | {"upsampler": "pixelshuffle"}
UNET = {
    "type": "MambaIRUNet", "dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "d_state": 2,
    "mlp_ratio": 1.0,
}  # fmt: skip
V2 = {
    "type": "MambaIRv2Light", "upscale": 2, "embed_dim": 24, "depths": [2], "num_heads": [2], "d_state": 8,
    "window_size": 8, "num_tokens": 16, "inner_rank": 4, "mlp_ratio": 1.0, "upsampler": "pixelshuffledirect",
}  # fmt: skip


def make(options: dict = MAMBAIR, replaying: bool = True) -> nn.Module:
    """The network with equal weights each time, its switches on or off."""
    torch.manual_seed(0)
    network = build_network(options)
    network.replays_graphs = network.replays_steps = replaying
    return network
