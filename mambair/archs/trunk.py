"""What MambaIR and MambaIRv2 share: the way in, residual groups one after the other, and the reconstruction heads.

Shapes: B batch, C embed_dim, H x W features, s scale.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mambair.archs.blocks import init_weights
from mambair.archs.layers import LayerNorm, channels_first, channels_last, residual_conv
from mambair.archs.network import RestorationNetwork
from mambair.archs.upsampling import Upsample, UpsampleOneStep
from mambair.errors import UserError

RESI_CONNECTIONS = ("1conv", "3conv")
HEAD_CHANNELS = 64  # between the body and the image in the heads of classic and real-world super-resolution
RGB_MEAN = (0.4488, 0.4371, 0.4040)  # DIV2K's


class PatchEmbed(nn.Module):
    """The LayerNorm before the first group; patches are single pixels, so nothing is embedded."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels, for_products=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class Trunk(RestorationNetwork):
    """A network of residual groups: (B, in_channels, H, W) in [0, 1] -> (B, in_channels, H s, W s).

    Sub-classes call `build` once, which registers everything in the published order of the state dict.
    """

    upsamplers: tuple[str, ...] = ("", "pixelshuffle", "pixelshuffledirect")
    """The heads that there are."""
    mean: Tensor
    upsample: nn.Module

    def build(
        self,
        groups: Iterable[nn.Module],
        *,
        upscale: int,
        in_chans: int,
        embed_dim: int,
        drop_rate: float,
        patch_norm: bool,
        img_range: float,
        upsampler: str,
        resi_connection: str,
    ) -> None:
        """Register all parts around the `groups`, each (B, H, W, C) -> (B, H, W, C), and initialise the weights.

        `groups` may be a generator: built in its place among the others, a seed gives every part the same weights.
        """
        self.scale = upscale
        self.in_channels = in_chans
        self.img_range = img_range
        self.upsampler = upsampler
        mean = torch.tensor(RGB_MEAN if in_chans == 3 else (0.0,)).view(1, -1, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, padding=1)
        self.patch_embed = PatchEmbed(embed_dim) if patch_norm else nn.Identity()
        self.pos_drop = nn.Dropout(drop_rate)
        self.layers = nn.ModuleList(groups)
        self.norm = LayerNorm(embed_dim)
        self.conv_after_body = residual_conv(embed_dim, resi_connection)
        self._build_head(upscale, in_chans, embed_dim)
        self.apply(init_weights)

    def _build_head(self, upscale: int, in_chans: int, embed_dim: int) -> None:
        def conv3(channels: int, out_channels: int) -> nn.Conv2d:
            return nn.Conv2d(channels, out_channels, 3, padding=1)

        if self.upsampler == "pixelshuffledirect":
            self.upsample = UpsampleOneStep(upscale, embed_dim, in_chans)
            return
        if self.upsampler:
            self.conv_before_upsample = nn.Sequential(conv3(embed_dim, HEAD_CHANNELS), nn.LeakyReLU())
        if self.upsampler == "pixelshuffle":
            self.upsample = Upsample(upscale, HEAD_CHANNELS)
        elif self.upsampler == "nearest+conv":
            self.conv_up1 = conv3(HEAD_CHANNELS, HEAD_CHANNELS)
            self.conv_up2 = conv3(HEAD_CHANNELS, HEAD_CHANNELS)
            self.conv_hr = conv3(HEAD_CHANNELS, HEAD_CHANNELS)
        self.conv_last = conv3(HEAD_CHANNELS if self.upsampler else embed_dim, in_chans)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        x = self._shifted(x)
        return self._reconstruct(self._body(x), x) / self.img_range + self.mean

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) in [0, 1] -> (B, embed_dim, H, W): what the head makes the image of."""
        self.check_input(x)
        return self._body(self._shifted(x))

    def _shifted(self, x: Tensor) -> Tensor:
        return ((x - self.mean) * self.img_range).contiguous(memory_format=torch.channels_last)

    def _body(self, x: Tensor) -> Tensor:
        shallow = self.conv_first(x)  # (B, C, H, W)
        features = self.pos_drop(self.patch_embed(channels_last(shallow)))  # (B, H, W, C)
        for layer in self.layers:
            features = layer(features)
        return self.conv_after_body(channels_first(self.norm(features))) + shallow  # (B, C, H, W)

    def _reconstruct(self, features: Tensor, x: Tensor) -> Tensor:
        """The image (B, in_channels, H s, W s), before mean and range are put back, by the head."""
        if self.upsampler == "pixelshuffle":
            return self.conv_last(self.upsample(self.conv_before_upsample(features)))
        if self.upsampler == "pixelshuffledirect":
            return self.upsample(features)
        if self.upsampler == "nearest+conv":
            features = self.conv_before_upsample(features)
            for conv in (self.conv_up1, self.conv_up2):
                features = F.leaky_relu(conv(F.interpolate(features, scale_factor=2, mode="nearest")), 0.2)
            return self.conv_last(F.leaky_relu(self.conv_hr(features), 0.2))
        return x + self.conv_last(features)


def check_trunk_options(
    upsamplers: Sequence[str], upscale: int, upsampler: str, resi_connection: str, patch_size: int
) -> None:
    """Raise UserError for options that do not describe a network with one of the `upsamplers`."""
    if upsampler not in upsamplers:
        known = ", ".join(f"'{name}'" for name in upsamplers if name)
        raise UserError(f"upsampler: '{upsampler}' is not one of {known}, ''")
    if resi_connection not in RESI_CONNECTIONS:
        raise UserError(f"resi_connection: '{resi_connection}' is not one of {', '.join(RESI_CONNECTIONS)}")
    if patch_size != 1:
        raise UserError(f"patch_size: {patch_size} is not supported; MambaIR's patches are single pixels (1)")
    if upsampler == "" and upscale != 1:
        raise UserError(
            f"upscale: {upscale} needs an upsampler; set upsampler to 'pixelshuffle' (classic) or 'pixelshuffledirect' "
            "(light), or upscale to 1"
        )
    if upsampler == "pixelshuffle" and not (upscale == 3 or (upscale >= 1 and upscale & (upscale - 1) == 0)):
        raise UserError(f"upscale: {upscale} with the upsampler 'pixelshuffle' must be 3 or a power of two")
    if upsampler == "nearest+conv" and upscale != 4:
        raise UserError(f"upscale: {upscale} with the upsampler 'nearest+conv' must be 4")
    if upscale < 1:
        raise UserError(f"upscale: {upscale} must be at least 1")
