"""MambaIR for super-resolution, denoising and JPEG artifact removal."""

from collections.abc import Sequence

from mambair.archs.blocks import RSSB, RSSG, check_block_options, drop_path_rates
from mambair.archs.network import constructor_arguments
from mambair.archs.trunk import Trunk, check_trunk_options
from mambair.registry import ARCHS


@ARCHS.register(ignored_keys=("window_size", "interval", "num_heads"))
class MambaIR(Trunk):
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

    compiling_pays = False  # each half of a block is one operator
    replays_graphs = replays_steps = True

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
        if local_block is None:
            local_block = "light_cab" if upsampler == "pixelshuffledirect" and compress_ratio is None else "cab"
        compress_ratio = compress_ratio or 3
        check_trunk_options(self.upsamplers, upscale, upsampler, resi_connection, patch_size)
        check_block_options(local_block, scan_directions, compress_ratio, embed_dim)

        drop_path = iter(drop_path_rates(drop_path_rate, sum(depths)))

        def group(depth: int) -> RSSG:
            blocks = [
                RSSB(embed_dim, d_state, mlp_ratio, next(drop_path), local_block, compress_ratio, scan_directions)
                for _ in range(depth)
            ]
            return RSSG(blocks, embed_dim, resi_connection, use_checkpoint)

        self.build(
            (group(depth) for depth in depths),
            upscale=upscale,
            in_chans=in_chans,
            embed_dim=embed_dim,
            drop_rate=drop_rate,
            patch_norm=patch_norm,
            img_range=img_range,
            upsampler=upsampler,
            resi_connection=resi_connection,
        )
