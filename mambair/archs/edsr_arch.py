"""EDSR (Lim et al., 2017), a baseline of the paper's tables that spandrel does not have.

Shapes: B images of C channels, H x W pixels; F features.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mambair.archs.foreign import foreign_name
from mambair.archs.mambair_arch import RGB_MEAN
from mambair.archs.network import RestorationNetwork, constructor_arguments
from mambair.archs.upsampling import Upsample
from mambair.registry import ARCHS

OFFICIAL_KEYS = (
    (r"^head\.0\.", "conv_first."),
    (r"^body\.(\d+)\.body\.0\.", r"body.\1.conv1."),
    (r"^body\.(\d+)\.body\.2\.", r"body.\1.conv2."),
    (r"^body\.\d+\.(?=weight|bias)", "conv_after_body."),
    (r"^tail\.0\.", "upsample."),
    (r"^tail\.1\.", "conv_last."),
)
"""The names of the authors' files, and those of BasicSR's files, which this network has."""


class ResidualBlock(nn.Module):
    """Two convolutions without normalisation; their sum with the input after scaling by `res_scale`."""

    def __init__(self, channels: int, res_scale: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.res_scale = res_scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.res_scale * self.conv2(torch.relu(self.conv1(x)))


@ARCHS.register()
class EDSR(RestorationNetwork):
    """(B, C, H, W) in [0, 1] -> (B, C', H * upscale, W * upscale). The defaults are EDSR-baseline's.

    The large network has num_feat 256, num_block 32 and res_scale 0.1. `img_range` scales the image inside.
    """

    def __init__(
        self,
        upscale: int = 4,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_block: int = 16,
        res_scale: float = 1.0,
        img_range: float = 255.0,
    ) -> None:
        hyperparameters = constructor_arguments(locals())
        super().__init__()
        self.hyperparameters = hyperparameters
        self.scale = upscale
        self.in_channels = num_in_ch
        self.img_range = img_range
        mean = RGB_MEAN if num_in_ch == num_out_ch == 3 else (0.0,)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, padding=1)
        self.body = nn.Sequential(*(ResidualBlock(num_feat, res_scale) for _ in range(num_block)))
        self.conv_after_body = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.upsample = Upsample(upscale, num_feat)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        x = self.conv_first((x - self.mean) * self.img_range)
        x = x + self.conv_after_body(self.body(x))
        return self.conv_last(self.upsample(x)) / self.img_range + self.mean


def is_edsr(state: Mapping[str, Tensor]) -> bool:
    """Whether these are EDSR's weights, under the authors' or BasicSR's names."""
    return foreign_name(state) == "EDSR"


def load_edsr(state: Mapping[str, Tensor]) -> EDSR:
    """The network that these weights are of, in eval mode. Raises ValueError where they are not whole.

    The scale of residuals, which weights do not tell, is the authors': 0.1 in the network of 256 features.
    """
    state = _renamed(state)
    try:
        options = _read_options(state)
    except KeyError as error:
        raise ValueError(f"{error.args[0]} is missing") from None
    network = EDSR(**options)
    wanted = {key: value.shape for key, value in network.state_dict().items()}
    misfits = [key for key in {**wanted, **state} if key not in state or wanted.get(key) != state[key].shape]
    if misfits:
        raise ValueError(f"these keys are missing, extra or of another shape: {', '.join(misfits[:8])}")
    network.load_state_dict(state)
    return network.eval()


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state under BasicSR's names, without the mean that the authors' files hold as convolutions."""
    renamed = {}
    official = "head.0.weight" in state
    for key, value in state.items():
        if key.startswith(("sub_mean.", "add_mean.")):
            continue
        for pattern, replacement in OFFICIAL_KEYS if official else ():
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def _read_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    features, channels = state["conv_first.weight"].shape[:2]
    steps = sum(bool(re.fullmatch(r"upsample\.\d+\.weight", key)) for key in state)
    factor = state["upsample.0.weight"].shape[0] // features
    return {
        "upscale": 3 if factor == 9 else 2**steps,
        "num_in_ch": channels,
        "num_out_ch": state["conv_last.weight"].shape[0],
        "num_feat": features,
        "num_block": len({key.split(".")[1] for key in state if re.match(r"body\.\d+\.conv1\.", key)}),
        "res_scale": 0.1 if features >= 256 else 1.0,
    }
