"""The attentive state-space module of MambaIRv2: pixels are sorted by what they show, and scanned once.

Shapes: B batch, C embed_dim, H x W features, L = H W, E inner channels, N = d_state states, R = ceil(E / 16) rank of
delta, T = num_tokens, r = inner_rank.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mambair.archs.layers import (
    DepthwiseConv2d,
    LayerNorm,
    PaddedLinear,
    PaddedPointwise,
    channels_first,
    channels_last,
)
from mambair.archs.vssm import init_scan_parameters
from mambair.ops import attentive_scan


class SelectiveScan(nn.Module):
    """The parameters of the scan (the paper's attentive state-space equation), and the scan itself."""

    def __init__(self, channels: int, d_state: int) -> None:
        super().__init__()
        rank = math.ceil(channels / 16)
        self.x_proj_weight = nn.Parameter(torch.empty(1, rank + 2 * d_state, channels))
        self.dt_projs_weight = nn.Parameter(torch.empty(1, channels, rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(1, channels))
        self.A_logs = nn.Parameter(torch.empty(channels, d_state))
        self.Ds = nn.Parameter(torch.empty(channels))
        init_scan_parameters(self)

    def forward(self, x: Tensor, tokens: Tensor, policy: Tensor | None, prompts: Tensor) -> Tensor:
        return attentive_scan(
            x,
            tokens,
            policy,
            prompts,
            self.x_proj_weight,
            self.dt_projs_weight,
            self.dt_projs_bias,
            self.A_logs,
            self.Ds,
        )


class ASSM(nn.Module):
    """Attentive state-space module, (B, H, W, C) -> (B, H, W, C).

    Every pixel is routed to one of T tokens; the scan goes over the pixels token by token, and its output matrix is
    increased by the token's prompt, so that a pixel also sees what comes after it.
    """

    def __init__(self, channels: int, d_state: int, num_tokens: int, inner_rank: int, mlp_ratio: float) -> None:
        super().__init__()
        self.d_inner = int(mlp_ratio * channels)
        self.num_tokens = num_tokens
        self.selectiveScan = SelectiveScan(self.d_inner, d_state)
        self.out_norm = LayerNorm(self.d_inner)
        self.out_proj = PaddedLinear(self.d_inner, channels, bias=True)
        self.in_proj = nn.Sequential(PaddedPointwise(channels, self.d_inner))
        self.CPE = nn.Sequential(DepthwiseConv2d(self.d_inner))
        self.embeddingB = nn.Embedding(num_tokens, inner_rank)
        self.route = nn.Sequential(nn.Linear(channels, channels // 3), nn.GELU(), nn.Linear(channels // 3, num_tokens))
        nn.init.uniform_(self.embeddingB.weight, -1 / num_tokens, 1 / num_tokens)

    def forward(self, x: Tensor, prompt_basis: Tensor, noise: Tensor | None) -> Tensor:
        """`prompt_basis`: (r, N), which the tokens' (T, r) embeddings combine to prompts.  `noise`: see `route_by`."""
        batch, height, width, _ = x.shape
        tokens, policy = route_by(self.route(x).flatten(1, 2), noise)
        prompts = self.embeddingB.weight @ prompt_basis  # (T, N)
        inner = self.in_proj(channels_first(x))
        inner = channels_last(inner * torch.sigmoid(self.CPE(inner)))  # (B, H, W, E)
        y = self.selectiveScan(inner.reshape(batch, height * width, self.d_inner), tokens, policy, prompts)
        return self.out_proj(self.out_norm(y.view(batch, height, width, self.d_inner)))


def route_by(logits: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """(token of each place (B, L), probabilities (B, L, T)) from the router's logits (B, L, T).

    Probabilities only carry gradients: where none are asked for, they are None.
    `noise`, (B, L, T) exponentially distributed, makes the choice a draw from the probabilities of the logits (the
    Gumbel-max trick), and the probabilities those of the Gumbel-softmax at temperature 1; None takes the likeliest.
    """
    scores = logits.float() if noise is None else logits.float() - noise.log()
    return scores.argmax(dim=-1), F.softmax(scores, dim=-1) if torch.is_grad_enabled() else None
