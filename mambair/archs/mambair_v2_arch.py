"""MambaIRv2 ("Attentive State Space Restoration", CVPR 2025) for super-resolution, denoising and JPEG artifact removal.

There is no MambaIRv2 U-Net for real denoising: none was published. MambaIRUNet is MambaIR's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mambair.archs.attentive_blocks import ASSB, ROUTINGS, AttentiveLayer
from mambair.archs.feed_forward import ConvFFN, GatedConvFFN
from mambair.archs.layers import mirror_to_multiple
from mambair.archs.network import constructor_arguments
from mambair.archs.trunk import Trunk, check_trunk_options
from mambair.errors import UserError
from mambair.registry import ARCHS

MOST_TOKENS = 2**15 - 1


@ARCHS.register(ignored_keys=("ape",))
class MambaIRv2(Trunk):
    """MambaIRv2: shallow convolution, groups of attentive layers (ASSB), reconstruction head.

    (B, in_chans, H, W) in [0, 1] -> (B, in_chans, H * upscale, W * upscale), any H, W >= 1. Sizes that are no multiples
    of window_size are mirrored up to one inside.

    Args:
        upscale: 1, 2, 3, 4, 8 ...; 1 goes with the upsampler ''.
        in_chans: image channels, 3 (RGB) or 1 (gray).
        img_size: no effect; published option files carry it.
        patch_size: only 1, for the same reason.
        embed_dim: feature channels C.
        d_state: states N per channel of the scan.
        depths: number of attentive layers in each group.
        num_heads: heads of the window attention in each group; they divide embed_dim.
        window_size: sides w of the attention's windows; every second layer shifts them by w // 2.
        inner_rank: rank r of the prompts.
        num_tokens: tokens T that pixels are routed to.
        convffn_kernel_size: sides of the depthwise convolutions in the feed-forwards; odd.
        mlp_ratio: expansion factor of the scan and of the feed-forwards: int(mlp_ratio * C) channels.
        qkv_bias: biases of the attention's queries, keys and values.
        patch_norm: LayerNorm before the first group.
        use_checkpoint: recompute attentive layers in the backward pass: less memory, about a third more time.
        img_range: the network works on (x - mean) * img_range; cannot be read off weights.
        upsampler: 'pixelshuffle' (classic SR), 'pixelshuffledirect' (light SR), 'nearest+conv' (real-world SR, x4), ''
            (denoising, JPEG).
        resi_connection: '1conv' or '3conv' at the end of each group and of the body.
        routing: how a network in eval mode chooses tokens: 'argmax', the likeliest, so that an image always gives the
            same result; or 'gumbel', drawn at random, as the published code does. In training mode they are drawn.

    Raises:
        UserError: an option has a value that no network can be built from.
    """

    upsamplers = ("", "pixelshuffle", "pixelshuffledirect", "nearest+conv")
    block_types = (AttentiveLayer,)
    compiling_pays = False  # each part of a layer is one operator
    replays_graphs = replays_steps = True
    feed_forward: type[ConvFFN] | type[GatedConvFFN] = ConvFFN

    def __init__(
        self,
        upscale: int = 1,
        in_chans: int = 3,
        img_size: int = 64,
        patch_size: int = 1,
        embed_dim: int = 48,
        d_state: int = 8,
        depths: Sequence[int] = (6, 6, 6, 6),
        num_heads: Sequence[int] = (4, 4, 4, 4),
        window_size: int = 16,
        inner_rank: int = 32,
        num_tokens: int = 64,
        convffn_kernel_size: int = 5,
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        img_range: float = 1.0,
        upsampler: str = "",
        resi_connection: str = "1conv",
        routing: str = "argmax",
    ) -> None:
        hyperparameters = constructor_arguments(locals())
        super().__init__()
        self.hyperparameters = hyperparameters
        self.window_size = self.size_multiple = window_size
        check_trunk_options(self.upsamplers, upscale, upsampler, resi_connection, patch_size)
        check_attention_options(embed_dim, depths, num_heads, window_size)
        check_positive(d_state=d_state, inner_rank=inner_rank, num_tokens=num_tokens)
        if convffn_kernel_size < 1 or convffn_kernel_size % 2 == 0:
            raise UserError(f"convffn_kernel_size: {convffn_kernel_size} must be odd")
        if routing not in ROUTINGS:
            raise UserError(f"routing: '{routing}' is not one of {', '.join(ROUTINGS)}")
        index = relative_position_index(window_size)
        self.register_buffer("relative_position_index_SA", index)  # published weights have it; nothing reads it

        def group(depth: int, heads: int) -> ASSB:
            layers = [
                AttentiveLayer(
                    embed_dim,
                    d_state=d_state,
                    num_heads=heads,
                    window_size=window_size,
                    shift=window_size // 2 if number % 2 else 0,
                    inner_rank=inner_rank,
                    num_tokens=num_tokens,
                    convffn_kernel_size=convffn_kernel_size,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    feed_forward=self.feed_forward,
                    routing=routing,
                )
                for number in range(depth)
            ]
            return ASSB(layers, embed_dim, resi_connection, use_checkpoint)

        self.build(
            (group(depth, heads) for depth, heads in zip(depths, num_heads, strict=True)),
            upscale=upscale,
            in_chans=in_chans,
            embed_dim=embed_dim,
            drop_rate=0.0,
            patch_norm=patch_norm,
            img_range=img_range,
            upsampler=upsampler,
            resi_connection=resi_connection,
        )

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        height, width = x.shape[2:]
        restored = super().forward(mirror_to_multiple(x, self.window_size))
        return restored[:, :, : height * self.scale, : width * self.scale]

    def forward_features(self, x: Tensor) -> Tensor:
        self.check_input(x)
        height, width = x.shape[2:]
        return super().forward_features(mirror_to_multiple(x, self.window_size))[:, :, :height, :width]


@ARCHS.register(ignored_keys=("ape",))
class MambaIRv2Light(MambaIRv2):
    """MambaIRv2 with the feed-forwards of the light networks; options as for MambaIRv2."""

    replays_graphs = replays_steps = True
    feed_forward = GatedConvFFN


def relative_position_index(window_size: int) -> Tensor:
    """(w w, w w): the row of the table of relative positions for every pair of a window's query and key."""
    place = torch.arange(window_size)
    rows, columns = (axis.flatten() for axis in torch.meshgrid(place, place, indexing="ij"))
    difference = [axis[:, None] - axis[None, :] + window_size - 1 for axis in (rows, columns)]
    return difference[0] * (2 * window_size - 1) + difference[1]


def check_attention_options(embed_dim: int, depths: Sequence[int], num_heads: Sequence[int], window_size: int) -> None:
    """Raise UserError for options that no attentive layer can be built from."""
    if len(depths) != len(num_heads):
        raise UserError(f"num_heads: {len(num_heads)} groups, but depths has {len(depths)}; give one number for each")
    for heads in num_heads:
        if heads < 1 or embed_dim % heads:
            raise UserError(f"num_heads: {heads} must divide the {embed_dim} channels of embed_dim")
    if window_size < 1:
        raise UserError(f"window_size: {window_size} must be at least 1")


def check_positive(**options: int) -> None:
    """Raise UserError for an option below 1, or above what a token's number is kept in."""
    for name, value in options.items():
        if not 1 <= value <= MOST_TOKENS:
            raise UserError(f"{name}: {value} must lie between 1 and {MOST_TOKENS}")
