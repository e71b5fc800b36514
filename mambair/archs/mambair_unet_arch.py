"""MambaIRUNet for real image denoising: RSSBs in an encoder-decoder of four levels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mambair.archs.blocks import RSSB, check_block_options, drop_path_rates, init_weights, run_blocks
from mambair.archs.layers import channels_first, channels_last, reflect_to_multiple
from mambair.archs.network import RestorationNetwork, constructor_arguments
from mambair.archs.upsampling import Downscale, Upscale
from mambair.errors import UserError
from mambair.registry import ARCHS

LEVELS = 4


class OverlapPatchEmbed(nn.Module):
    """The shallow 3x3 convolution (B, C_in, H, W) -> (B, C, H, W)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


@ARCHS.register(ignored_keys=("window_size", "interval", "num_heads", "img_size", "patch_size"))
class MambaIRUNet(RestorationNetwork):
    """MambaIR's blocks in Restormer's encoder-decoder, with Restormer's option names.

    (B, inp_channels, H, W) in [0, 1] -> (B, out_channels, H, W), any H, W >= 1: the image is padded by reflection to
    multiples of 8 and the result cropped.

    Args:
        inp_channels: channels of the input image.
        out_channels: channels of the restored image; the input is added to it, so both must be equal unless
            dual_pixel_task is on.
        dim: channels of the first level; levels 2, 3, 4 have 2, 4, 8 times as many.
        num_blocks: RSSBs of the four levels.
        num_refinement_blocks: RSSBs at full resolution after the decoder.
        mlp_ratio: the VSSM's expansion factor.
        bias: biases in the 1x1 convolutions after skip connections and in the output convolution.
        dual_pixel_task: two views in (inp_channels 6), no skip connection from input to output.
        drop_path_rate: stochastic depth of the last RSSB; it grows linearly from 0 at the first.
        d_state: states per channel of the scan, at every level.
        use_checkpoint: recompute RSSBs in the backward pass: less memory, about a third more time.
        compress_ratio, local_block, scan_directions: as for MambaIR.

    Raises:
        UserError: an option has a value that no network can be built from.
    """

    scale = 1
    size_multiple = 2 ** (LEVELS - 1)
    compiling_pays = False  # each half of a block is one operator
    replays_graphs = replays_steps = True

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        mlp_ratio: float = 2.0,
        bias: bool = False,
        dual_pixel_task: bool = False,
        drop_path_rate: float = 0.0,
        d_state: int = 16,
        use_checkpoint: bool = False,
        compress_ratio: int = 3,
        local_block: str = "cab",
        scan_directions: int = 4,
    ) -> None:
        hyperparameters = constructor_arguments(locals())
        super().__init__()
        self.hyperparameters = hyperparameters
        self.in_channels = inp_channels
        self.use_checkpoint = use_checkpoint
        self.dual_pixel_task = dual_pixel_task
        check_block_options(local_block, scan_directions, compress_ratio, dim)
        if len(num_blocks) != LEVELS:
            raise UserError(f"num_blocks: {list(num_blocks)} must name {LEVELS} levels")
        if inp_channels != out_channels and not dual_pixel_task:
            raise UserError(f"out_channels: {out_channels} must equal inp_channels ({inp_channels})")

        depths = [*num_blocks, *reversed(num_blocks[:-1]), num_refinement_blocks]
        drop_path = iter(drop_path_rates(drop_path_rate, sum(depths)))

        def stage(depth: int, channels: int) -> nn.ModuleList:
            return nn.ModuleList(
                RSSB(channels, d_state, mlp_ratio, next(drop_path), local_block, compress_ratio, scan_directions)
                for _ in range(depth)
            )

        self.patch_embed = OverlapPatchEmbed(inp_channels, dim)
        self.encoder_level1 = stage(num_blocks[0], dim)
        self.down1_2 = Downscale(dim)
        self.encoder_level2 = stage(num_blocks[1], 2 * dim)
        self.down2_3 = Downscale(2 * dim)
        self.encoder_level3 = stage(num_blocks[2], 4 * dim)
        self.down3_4 = Downscale(4 * dim)
        self.latent = stage(num_blocks[3], 8 * dim)
        self.up4_3 = Upscale(8 * dim)
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=bias)
        self.decoder_level3 = stage(num_blocks[2], 4 * dim)
        self.up3_2 = Upscale(4 * dim)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=bias)
        self.decoder_level2 = stage(num_blocks[1], 2 * dim)
        self.up2_1 = Upscale(2 * dim)
        self.decoder_level1 = stage(num_blocks[0], 2 * dim)
        self.refinement = stage(num_refinement_blocks, 2 * dim)
        if dual_pixel_task:
            self.skip_conv = nn.Conv2d(dim, 2 * dim, 1, bias=bias)
        self.output = nn.Conv2d(2 * dim, out_channels, 3, padding=1, bias=bias)
        self.apply(init_weights)

    def run_stage(self, blocks: nn.ModuleList, x: Tensor) -> Tensor:
        """RSSBs on (B, C, H, W)."""
        x = channels_last(x.contiguous(memory_format=torch.channels_last))
        return channels_first(run_blocks(blocks, x, self.use_checkpoint))

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        height, width = x.shape[2:]
        x = reflect_to_multiple(x, self.size_multiple).contiguous(memory_format=torch.channels_last)
        shallow = self.patch_embed(x)  # (B, C, H, W)
        y = self._body(shallow)
        restored = self.output(y + self.skip_conv(shallow)) if self.dual_pixel_task else self.output(y) + x
        return restored[:, :, :height, :width]

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, inp_channels, H, W) in [0, 1] -> (B, 2 * dim, H, W): what the last convolution makes the image of."""
        self.check_input(x)
        height, width = x.shape[2:]
        x = reflect_to_multiple(x, self.size_multiple).contiguous(memory_format=torch.channels_last)
        return self._body(self.patch_embed(x))[:, :, :height, :width]

    def _body(self, shallow: Tensor) -> Tensor:
        """The encoder, the decoder and the refinement, (B, C, H, W) -> (B, 2C, H, W)."""
        level1 = self.run_stage(self.encoder_level1, shallow)
        level2 = self.run_stage(self.encoder_level2, self.down1_2(level1))  # (B, 2C, H/2, W/2)
        level3 = self.run_stage(self.encoder_level3, self.down2_3(level2))  # (B, 4C, H/4, W/4)
        y = self.run_stage(self.latent, self.down3_4(level3))  # (B, 8C, H/8, W/8)
        y = self.reduce_chan_level3(torch.cat([self.up4_3(y), level3], dim=1))
        y = self.up3_2(self.run_stage(self.decoder_level3, y))
        y = self.reduce_chan_level2(torch.cat([y, level2], dim=1))
        y = self.up2_1(self.run_stage(self.decoder_level2, y))
        y = self.run_stage(self.decoder_level1, torch.cat([y, level1], dim=1))  # (B, 2C, H, W)
        return self.run_stage(self.refinement, y)
