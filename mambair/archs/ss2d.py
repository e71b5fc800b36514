"""The 2D selective scan as a module of its own, for other VMamba-like networks.

Shapes: B images, C d_model, H x W features, E = int(expand * C) inner channels, N d_state states, K directions,
R dt_rank.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mambair.archs.blocks import SCAN_DIRECTIONS
from mambair.archs.vssm import init_scan_parameters
from mambair.errors import UserError
from mambair.ops import depthwise_conv, ss2d_scan


class SS2D(nn.Module):
    """VMamba's gated SS2D, channels last: (B, H, W, C) -> (B, H, W, C), for any C, N, expansion and odd convolution.

    Parameters have the names and shapes of VMamba's first published weights, which MambaIR's have too: in_proj, conv2d,
    x_proj_weight (K, R + 2 N, E), dt_projs_weight (K, E, R), dt_projs_bias (K, E), A_logs (K E, N), Ds (K E), out_norm,
    out_proj. `VSSM` is the same with MambaIR's choices. Weight decay should leave A_logs and Ds alone.

    Args:
        d_model: channels C.
        d_state: states N per channel.
        expand: inner channels per channel.
        d_conv: side of the depthwise convolution, odd.
        dt_rank: rank R of delta; auto is C / 16, rounded up.
        directions: 4, 2 (rows forwards and backwards ... as `ss2d_scan` defines them) or 1.
        conv_bias, bias: whether the convolution, and both projections, have one.
        dropout: of the result.

    Raises:
        UserError: a value that no module can be built from.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        expand: float = 2.0,
        d_conv: int = 3,
        dt_rank: int | str = "auto",
        directions: int = 4,
        conv_bias: bool = True,
        bias: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if directions not in SCAN_DIRECTIONS:
            raise UserError(f"SS2D: directions {directions} is not one of 1, 2, 4")
        if d_conv < 1 or d_conv % 2 == 0:
            raise UserError(f"SS2D: d_conv {d_conv} must be odd")
        rank = math.ceil(d_model / 16) if dt_rank == "auto" else int(dt_rank)
        inner = int(expand * d_model)
        if min(d_model, d_state, rank, inner) < 1:
            raise UserError("SS2D: d_model, d_state, dt_rank and expand * d_model must be at least 1")
        self.directions = directions
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=bias)
        self.conv2d = nn.Conv2d(inner, inner, d_conv, padding=d_conv // 2, groups=inner, bias=conv_bias)
        self.x_proj_weight = nn.Parameter(torch.empty(directions, rank + 2 * d_state, inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(directions, inner, rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(directions, inner))
        self.A_logs = nn.Parameter(torch.empty(directions * inner, d_state))
        self.Ds = nn.Parameter(torch.empty(directions * inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, d_model, bias=bias)
        self.dropout = nn.Dropout(dropout)
        init_scan_parameters(self)

    def forward(self, x: Tensor) -> Tensor:
        x, z = self.in_proj(x).chunk(2, dim=-1)  # (B, H, W, E) each
        x = depthwise_conv(x, self.conv2d.weight, self.conv2d.bias, silu=True)
        y = ss2d_scan(
            x,
            self.x_proj_weight,
            self.dt_projs_weight,
            self.dt_projs_bias,
            self.A_logs,
            self.Ds,
            directions=self.directions,
        )  # (B, H, W, E)
        return self.dropout(self.out_proj(self.out_norm(y) * F.silu(z)))
