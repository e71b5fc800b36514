"""How the cost of a network grows with the image: MambaIR beside SwinIR and full attention (the paper, Fig. 5).

All three have the light network's size: width 60, 24 blocks, upscaling by 2.
"""

import warnings
from collections.abc import Sequence
from importlib.util import find_spec

from torch import nn

from mambair.analysis.complexity import measure_complexity
from mambair.archs import build_network

WIDTH = 60
GROUPS = (6, 6, 6, 6)
SCALE = 2
MLP_RATIO = 2
SWINIR_WINDOW, SWINIR_TRAINING_SIZE = 8, 64
KERNEL = 9  # taps of a 3x3 convolution
IMAGE_CHANNELS = 3

# What `mambair analyze complexity` counts when no network is named: the light network, as released.
LIGHT = {
    "type": "MambaIR",
    "embed_dim": WIDTH,
    "depths": list(GROUPS),
    "d_state": 10,
    "mlp_ratio": 1.2,
    "upsampler": "pixelshuffledirect",
}
# And the earlier one that the paper's Table 4 lists.
PAPER_LIGHT = LIGHT | {"d_state": 16, "mlp_ratio": 1.5, "compress_ratio": 6}


def full_attention_flops(side: int) -> int:
    """FLOPs of a light network whose blocks attend from every pixel to every pixel of a side x side image.

    Per block: projections to query, key, value and back (4 C^2 MACs a pixel), scores and their use (2 C MACs a
    pair of pixels), a two-layer perceptron (2 * MLP_RATIO * C^2 MACs a pixel). Convolutions as in the light network.
    """
    pixels = side * side
    block = (4 + 2 * MLP_RATIO) * WIDTH**2 * pixels + 2 * WIDTH * pixels**2
    convolutions = len(GROUPS) + 1  # one after each group, one after the body
    body = KERNEL * WIDTH**2 * pixels * convolutions
    ends = KERNEL * WIDTH * IMAGE_CHANNELS * pixels * (1 + SCALE**2)
    return 2 * (sum(GROUPS) * block + body + ends)


def swinir_light() -> nn.Module:
    """SwinIR-light, from spandrel."""
    from spandrel.architectures.SwinIR import SwinIR

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.meshgrid")  # spandrel's SwinIR, with PyTorch 2.14
        return SwinIR(
            upscale=SCALE,
            img_size=SWINIR_TRAINING_SIZE,
            window_size=SWINIR_WINDOW,
            depths=GROUPS,
            embed_dim=WIDTH,
            num_heads=[6] * len(GROUPS),
            mlp_ratio=MLP_RATIO,
            upsampler="pixelshuffledirect",
        )


def flops_by_size(sides: Sequence[int]) -> dict[str, list[int]]:
    """FLOPs (scans included) for square inputs of these sides, for each method; SwinIR where spandrel is installed."""
    flops = {"full attention": [full_attention_flops(side) for side in sides]}
    networks = {"MambaIR": build_network(LIGHT | {"upscale": SCALE})}
    if find_spec("spandrel") is not None:
        networks["SwinIR"] = swinir_light()
    for name, network in networks.items():
        flops[name] = [measure_complexity(network, side, side).flops for side in sides]
    return flops
