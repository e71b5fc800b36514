"""EDSR (Lim et al., 2017), a baseline of the paper's tables that spandrel does not have.

Shapes: B images of C channels, H x W pixels; F features.
"""

import torch
from torch import Tensor, nn

from mambair.archs.network import RestorationNetwork, constructor_arguments
from mambair.archs.trunk import RGB_MEAN
from mambair.archs.upsampling import Upsample
from mambair.registry import ARCHS


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
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, padding=1)
        self.body = nn.Sequential(*(ResidualBlock(num_feat, res_scale) for _ in range(num_block)))
        self.conv_after_body = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.upsample = Upsample(upscale, num_feat)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, padding=1)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, num_in_ch, H, W) in [0, 1] -> (B, num_feat, H, W): what the head makes the image of."""
        self.check_input(x)
        x = self.conv_first((x - self.mean) * self.img_range)
        return x + self.conv_after_body(self.body(x))

    def forward(self, x: Tensor) -> Tensor:
        x = self.forward_features(x)
        return self.conv_last(self.upsample(x)) / self.img_range + self.mean
