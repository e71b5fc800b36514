"""The blocks of MambaIRv2: window attention, the attentive layer and its residual group (ASSB).

Shapes: B batch, C embed_dim, H x W features, multiples of the window size w. Features are (B, H, W, C), contiguous.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mambair.archs.assm import ASSM
from mambair.archs.attentive_parts import run_attention, run_feed_forward, run_state_space
from mambair.archs.feed_forward import ConvFFN, GatedConvFFN
from mambair.archs.layers import LayerNorm, PaddedLinear, channels_first, channels_last, residual_conv
from mambair.archs.window_attention import WindowAttention

ROUTINGS = ("argmax", "gumbel")
INITIAL_SCALE = 1e-4  # of the skip connections


class AttentiveLayer(nn.Module):
    """Window attention, then the attentive state-space module, each with a feed-forward; (B, H, W, C) -> the same."""

    def __init__(
        self,
        channels: int,
        *,
        d_state: int,
        num_heads: int,
        window_size: int,
        shift: int,
        inner_rank: int,
        num_tokens: int,
        convffn_kernel_size: int,
        mlp_ratio: float,
        qkv_bias: bool,
        feed_forward: type[ConvFFN] | type[GatedConvFFN],
        routing: str,
    ) -> None:
        super().__init__()
        hidden = int(mlp_ratio * channels)
        self.shift = shift
        self.routing = routing
        self.scale1 = nn.Parameter(torch.full((channels,), INITIAL_SCALE))
        self.scale2 = nn.Parameter(torch.full((channels,), INITIAL_SCALE))
        self.norm1 = LayerNorm(channels)
        self.norm2 = LayerNorm(channels)
        self.norm3 = LayerNorm(channels)
        self.norm4 = LayerNorm(channels)
        self.wqkv = PaddedLinear(channels, 3 * channels, bias=qkv_bias)
        self.win_mhsa = WindowAttention(channels, window_size, num_heads)
        self.assm = ASSM(channels, d_state, num_tokens, inner_rank, mlp_ratio)
        self.convffn1 = feed_forward(channels, hidden, convffn_kernel_size)
        self.convffn2 = feed_forward(channels, hidden, convffn_kernel_size)
        self.embeddingA = nn.Embedding(inner_rank, d_state)
        nn.init.uniform_(self.embeddingA.weight, -1 / inner_rank, 1 / inner_rank)

    def draw_noise(self, x: Tensor) -> Tensor | None:
        """What the routing of features x is drawn with, (B, H W, T), exponentially distributed; None: it is not drawn.

        From torch's global generator, which the training loop seeds for every micro-batch. Outside of `forward`, so
        that recomputation for checkpointing needs no random state.
        """
        if not self.training and self.routing == "argmax":
            return None
        batch, height, width, _ = x.shape
        return x.new_empty(batch, height * width, self.assm.num_tokens, dtype=torch.float32).exponential_()

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        x = self._mix(self._attend(x), x, self.norm2, self.convffn1, self.scale1)
        z = self._scan(x, noise)
        return self._mix(z, x, self.norm4, self.convffn2, self.scale2)

    def _attend(self, x: Tensor) -> Tensor:
        """x + the window attention of it."""
        found = run_attention(self, x)
        return x + self.win_mhsa(self.wqkv(self.norm1(x)), self.shift) if found is None else found

    def _scan(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """x + the attentive state-space module of it."""
        found = run_state_space(self, x, noise)
        return x + self.assm(self.norm3(x), self.embeddingA.weight, noise) if found is None else found

    def _mix(
        self, x: Tensor, other: Tensor, norm: LayerNorm, feed_forward: ConvFFN | GatedConvFFN, scale: Tensor
    ) -> Tensor:
        """x + its feed-forward + other scale."""
        found = run_feed_forward(feed_forward, norm, scale, x, other)
        return torch.addcmul(x + feed_forward(norm(x)), other, scale) if found is None else found


class AttentiveLayers(nn.Module):
    """Attentive layers one after the other; `use_checkpoint` recomputes each one in the backward pass."""

    def __init__(self, layers: Sequence[AttentiveLayer], use_checkpoint: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.use_checkpoint = use_checkpoint

    def forward(self, x: Tensor) -> Tensor:
        recompute = self.use_checkpoint and torch.is_grad_enabled()
        for layer in self.layers:
            assert isinstance(layer, AttentiveLayer)
            noise = layer.draw_noise(x)
            if recompute:
                x = checkpoint(layer, x, noise, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x, noise)
        return x


class ASSB(nn.Module):
    """Attentive state-space block: attentive layers and a convolution around a skip connection; (B, H, W, C)."""

    def __init__(
        self, layers: Sequence[AttentiveLayer], channels: int, resi_connection: str, use_checkpoint: bool
    ) -> None:
        super().__init__()
        self.residual_group = AttentiveLayers(layers, use_checkpoint)
        self.conv = residual_conv(channels, resi_connection)

    def forward(self, x: Tensor) -> Tensor:
        return channels_last(self.conv(channels_first(self.residual_group(x)))) + x
