"""MambaIR for super-resolution, denoising and JPEG artifact removal."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mambair.archs.blocks import RSSB, RSSG, check_block_options, drop_path_rates, init_weights
from mambair.archs.layers import channels_first, channels_last, residual_conv
from mambair.archs.network import RestorationNetwork, constructor_arguments
from mambair.archs.upsampling import Upsample, UpsampleOneStep
from mambair.errors import UserError
from mambair.registry import ARCHS

UPSAMPLERS = ("", "pixelshuffle", "pixelshuffledirect")
RESI_CONNECTIONS = ("1conv", "3conv")
HEAD_CHANNELS = 64  # between the body and the pixel shuffle of the classic head
RGB_MEAN = (0.4488, 0.4371, 0.4040)  # DIV2K's


class PatchEmbed(nn.Module):
    """The LayerNorm before the first group; patches are single pixels, so nothing is embedded."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


@ARCHS.register(ignored_keys=("window_size", "interval", "num_heads"))
class MambaIR(RestorationNetwork):
    """MambaIR: shallow convolution, residual state-space groups, reconstruction head (the paper, Sec. 3.2).

    (B, in_chans, H, W) in [0, 1] -> (B, in_chans, H * upscale, W * upscale), any H, W >= 1.

    Args:
        upscale: 1, 2, 3, 4, 8 ...; 1 goes with the upsampler ''.
        in_chans: image channels, 3 (RGB) or 1 (gray).
        img_size: no effect; published option files carry it.
        patch_size: only 1, for the same reason.
        embed_dim: feature channels C.
        depths: number of RSSBs in each RSSG.
        d_state: states N per channel of the scan.
        mlp_ratio: the VSSM's expansion factor (the paper's lambda): E = int(mlp_ratio * C) inner channels.
        drop_rate: dropout after the first LayerNorm.
        drop_path_rate: stochastic depth of the last RSSB; it grows linearly from 0 at the first.
        patch_norm: LayerNorm before the first group.
        use_checkpoint: recompute RSSBs in the backward pass: less memory, about a third more time.
        img_range: the network works on (x - mean) * img_range; cannot be read off weights.
        upsampler: 'pixelshuffle' (classic and real SR), 'pixelshuffledirect' (light SR), '' (denoising, JPEG).
        resi_connection: '1conv' or '3conv' at the end of each group and of the body.
        compress_ratio: bottleneck of the CAB (the paper's gamma), default 3. Light networks have a different
            CAB with a fixed ratio; setting compress_ratio gives them the plain CAB, as in the paper's Table 4.
        local_block: second half of the RSSB: 'cab', 'light_cab', or an ablation of the paper's Table 1: 'ca' (no
            convolution), 'none' (no convolution, no channel attention), 'mlp'. Default: 'light_cab' when the
            upsampler is 'pixelshuffledirect' and compress_ratio is not set, else 'cab'.
        scan_directions: 4, or 2 or 1 (the ablation of the paper's Table 2).

    Raises:
        UserError: an option has a value that no network can be built from.
    """

    def __init__(
        self,
        upscale: int = 1,
        in_chans: int = 3,
        img_size: int = 64,
        patch_size: int = 1,
        embed_dim: int = 96,
        depths: Sequence[int] = (6, 6, 6, 6),
        d_state: int = 16,
        mlp_ratio: float = 2.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        img_range: float = 1.0,
        upsampler: str = "",
        resi_connection: str = "1conv",
        compress_ratio: int | None = None,
        local_block: str | None = None,
        scan_directions: int = 4,
    ) -> None:
        hyperparameters = constructor_arguments(locals())
        super().__init__()
        self.hyperparameters = hyperparameters
        self.scale = upscale
        self.in_channels = in_chans
        self.img_range = img_range
        self.upsampler = upsampler
        if local_block is None:
            local_block = "light_cab" if upsampler == "pixelshuffledirect" and compress_ratio is None else "cab"
        compress_ratio = compress_ratio or 3
        check_head_options(upscale, upsampler, resi_connection, patch_size)
        check_block_options(local_block, scan_directions, compress_ratio, embed_dim)

        mean = torch.tensor(RGB_MEAN if in_chans == 3 else (0.0,)).view(1, -1, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, padding=1)
        self.patch_embed = PatchEmbed(embed_dim) if patch_norm else nn.Identity()
        self.pos_drop = nn.Dropout(drop_rate)
        drop_path = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.layers = nn.ModuleList()
        for depth in depths:
            blocks = [
                RSSB(embed_dim, d_state, mlp_ratio, next(drop_path), local_block, compress_ratio, scan_directions)
                for _ in range(depth)
            ]
            self.layers.append(RSSG(blocks, embed_dim, resi_connection, use_checkpoint))
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = residual_conv(embed_dim, resi_connection)
        if upsampler == "pixelshuffle":
            self.conv_before_upsample = nn.Sequential(nn.Conv2d(embed_dim, HEAD_CHANNELS, 3, padding=1), nn.LeakyReLU())
            self.upsample = Upsample(upscale, HEAD_CHANNELS)
            self.conv_last = nn.Conv2d(HEAD_CHANNELS, in_chans, 3, padding=1)
        elif upsampler == "pixelshuffledirect":
            self.upsample = UpsampleOneStep(upscale, embed_dim, in_chans)
        else:
            self.conv_last = nn.Conv2d(embed_dim, in_chans, 3, padding=1)
        self.apply(init_weights)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        x = ((x - self.mean) * self.img_range).contiguous(memory_format=torch.channels_last)
        shallow = self.conv_first(x)  # (B, C, H, W)
        features = self.pos_drop(self.patch_embed(channels_last(shallow)))  # (B, H, W, C)
        for layer in self.layers:
            features = layer(features)
        features = self.conv_after_body(channels_first(self.norm(features))) + shallow  # (B, C, H, W)
        if self.upsampler == "pixelshuffle":
            restored = self.conv_last(self.upsample(self.conv_before_upsample(features)))
        elif self.upsampler == "pixelshuffledirect":
            restored = self.upsample(features)
        else:
            restored = x + self.conv_last(features)
        return restored / self.img_range + self.mean


def check_head_options(upscale: int, upsampler: str, resi_connection: str, patch_size: int) -> None:
    """Raise UserError for options that do not describe a MambaIR."""
    if upsampler not in UPSAMPLERS:
        raise UserError(f"upsampler: '{upsampler}' is not one of 'pixelshuffle', 'pixelshuffledirect', ''")
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
    if upscale < 1:
        raise UserError(f"upscale: {upscale} must be at least 1")
