"""The blocks of MambaIR: the residual state-space block (RSSB) around a VSSM, and the group of them (RSSG).

Shapes: B batch, C embed_dim, H x W features. Features are (B, H, W, C), contiguous.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mambair.archs.halves import run_local_half, run_scan_half
from mambair.archs.layers import CAB, MLP, ChannelAttention, LightCAB, channels_first, channels_last, residual_conv
from mambair.archs.vssm import VSSM
from mambair.errors import UserError

LOCAL_BLOCKS = ("cab", "light_cab", "ca", "mlp", "none")
SCAN_DIRECTIONS = (1, 2, 4)


def build_local_block(kind: str, channels: int, compress_ratio: int) -> nn.Module | None:
    """The second half of an RSSB by its option name; None for 'none'.

    'cab' and 'light_cab' are MambaIR's; 'ca' (no convolution), 'none' (neither convolution nor channel attention)
    and 'mlp' are the ablations (1), (2), (3) of the paper's Table 1.
    """
    if kind == "cab":
        return CAB(channels, compress_ratio)
    if kind == "light_cab":
        return LightCAB(channels)
    if kind == "ca":
        return ChannelAttention(channels)
    if kind == "mlp":
        return MLP(channels)
    assert kind == "none", kind
    return None


class RSSB(nn.Module):
    """Residual state-space block (the paper, Eq. 5 and 6), (B, H, W, C) -> (B, H, W, C)."""

    def __init__(
        self,
        channels: int,
        d_state: int = 16,
        mlp_ratio: float = 2.0,
        drop_path: float = 0.0,
        local_block: str = "cab",
        compress_ratio: int = 3,
        scan_directions: int = 4,
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(channels)
        self.self_attention = VSSM(channels, d_state, mlp_ratio, scan_directions)
        self.drop_path_rate = drop_path
        self.skip_scale = nn.Parameter(torch.ones(channels))
        self.conv_blk = build_local_block(local_block, channels, compress_ratio)
        if self.conv_blk is not None:
            self.skip_scale2 = nn.Parameter(torch.ones(channels))
            self.ln_2 = nn.LayerNorm(channels)

    def draw_keep(self, x: Tensor) -> Tensor | None:
        """Stochastic depth's factor of each sample, (B, 1, 1, 1): 0 with the block's rate, else 1 / (1 - rate).

        None where nothing is dropped. It is drawn outside of `forward`, so that the one compiled block serves all
        blocks although their rates differ, and recomputation for checkpointing needs no random state.
        """
        if not self.training or self.drop_path_rate == 0:
            return None
        kept = 1 - self.drop_path_rate
        return x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(kept).div_(kept)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        found = run_scan_half(self, x, keep)
        if found is None:
            attended = self.self_attention(self.ln_1(x))
            found = torch.addcmul(attended if keep is None else attended * keep, x, self.skip_scale)
        x = found
        if self.conv_blk is None:
            return x
        found = run_local_half(self, x)
        if found is None:
            local = channels_last(self.conv_blk(channels_first(self.ln_2(x))))
            found = torch.addcmul(local, x, self.skip_scale2)
        return found


class BlockStack(nn.Module):
    """A stack of RSSBs one after the other, as `blocks`; `use_checkpoint` recomputes each one in the backward pass."""

    def __init__(self, blocks: Sequence[RSSB], use_checkpoint: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.use_checkpoint = use_checkpoint

    def forward(self, x: Tensor) -> Tensor:
        return run_blocks(self.blocks, x, self.use_checkpoint)


class RSSG(nn.Module):
    """Residual state-space group: RSSBs and a convolution around a skip connection, (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, blocks: Sequence[RSSB], channels: int, resi_connection: str, use_checkpoint: bool) -> None:
        super().__init__()
        self.residual_group = BlockStack(blocks, use_checkpoint)
        self.conv = residual_conv(channels, resi_connection)

    def forward(self, x: Tensor) -> Tensor:
        return channels_last(self.conv(channels_first(self.residual_group(x)))) + x


def run_blocks(blocks: Iterable[nn.Module], x: Tensor, use_checkpoint: bool) -> Tensor:
    """Apply `blocks` in order; with `use_checkpoint`, keep only their inputs for the backward pass."""
    recompute = use_checkpoint and torch.is_grad_enabled()
    for block in blocks:
        assert isinstance(block, RSSB)
        keep = block.draw_keep(x)
        x = checkpoint(block, x, keep, use_reentrant=False) if recompute else block(x, keep)
    return x


def drop_path_rates(last: float, blocks: int) -> list[float]:
    """Stochastic depth of each of `blocks` RSSBs: from 0 at the first, linearly, to `last` at the last."""
    if not 0 <= last < 1:
        raise UserError(f"drop_path_rate: {last} must lie between 0 and 1")
    return [last * index / max(blocks - 1, 1) for index in range(blocks)]


def init_weights(module: nn.Module) -> None:
    """For `nn.Module.apply`: truncated normal (0.02) for Linear; convolutions and LayerNorms keep PyTorch's default."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def no_weight_decay_names(network: nn.Module) -> set[str]:
    """Names of the scan's A_logs and Ds: weight decay would pull the time constants towards one fixed value."""
    return {name for name, _ in network.named_parameters() if name.rpartition(".")[2] in ("A_logs", "Ds")}


def check_block_options(local_block: str, scan_directions: int, compress_ratio: int, channels: int) -> None:
    """Raise UserError for an RSSB option that no block can be built from."""
    if local_block not in LOCAL_BLOCKS:
        raise UserError(f"local_block: '{local_block}' is not one of {', '.join(LOCAL_BLOCKS)}")
    if scan_directions not in SCAN_DIRECTIONS:
        raise UserError(f"scan_directions: {scan_directions} is not one of 1, 2, 4")
    if not 1 <= compress_ratio <= channels:
        raise UserError(f"compress_ratio: {compress_ratio} must lie between 1 and the {channels} channels")
