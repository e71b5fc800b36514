"""The vision state-space module (VSSM), MambaIR's counterpart of attention.

Shapes: B batch, C channels, H x W features, E = int(mlp_ratio * C) inner channels, N = d_state states, K scan
directions, R = ceil(C / 16) rank of delta. Features are (B, H, W, C), contiguous.
"""

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mambair.archs.layers import DepthwiseConv2d, PaddedLinear, channels_first, channels_last
from mambair.ops import ss2d_scan


class HoldsScan(Protocol):
    """A module with the parameters of a selective scan, under the names of published weights."""

    x_proj_weight: nn.Parameter
    dt_projs_weight: nn.Parameter
    dt_projs_bias: nn.Parameter
    A_logs: nn.Parameter
    Ds: nn.Parameter


class VSSM(nn.Module):
    """Vision state-space module (the paper, Eq. 7): a gated 2D selective scan, (B, H, W, C) -> (B, H, W, C).

    The parameters of the scan lie directly on this module, since published weights name them so; the scan itself
    is the operator `mambair.ops.ss2d_scan`.
    """

    def __init__(self, channels: int, d_state: int = 16, mlp_ratio: float = 2.0, scan_directions: int = 4) -> None:
        super().__init__()
        self.d_state = d_state
        self.d_inner = int(mlp_ratio * channels)
        self.dt_rank = math.ceil(channels / 16)
        self.scan_directions = scan_directions

        self.in_proj = PaddedLinear(channels, 2 * self.d_inner)
        self.conv2d = DepthwiseConv2d(self.d_inner, silu=True)
        self.x_proj_weight = nn.Parameter(torch.empty(scan_directions, self.dt_rank + 2 * d_state, self.d_inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(scan_directions, self.d_inner, self.dt_rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(scan_directions, self.d_inner))
        self.A_logs = nn.Parameter(torch.empty(scan_directions * self.d_inner, d_state))
        self.Ds = nn.Parameter(torch.empty(scan_directions * self.d_inner))
        self.out_norm = nn.LayerNorm(self.d_inner)
        self.out_proj = PaddedLinear(self.d_inner, channels)
        init_scan_parameters(self)

    def forward(self, x: Tensor) -> Tensor:
        x, z = self.in_proj(x).chunk(2, dim=-1)  # (B, H, W, E) each
        x = channels_last(self.conv2d(channels_first(x)))
        y = ss2d_scan(
            x,
            self.x_proj_weight,
            self.dt_projs_weight,
            self.dt_projs_bias,
            self.A_logs,
            self.Ds,
            directions=self.scan_directions,
        )  # (B, H, W, E)
        return self.out_proj(self.out_norm(y) * F.silu(z))


@torch.no_grad()
def init_scan_parameters(scan: HoldsScan, dt_min: float = 1e-3, dt_max: float = 1e-1, dt_floor: float = 1e-4) -> None:
    """Mamba's initialisation: softplus(dt_projs_bias) is log-uniform in [dt_min, dt_max], A = -(1..N), D = 1."""
    bound = scan.x_proj_weight.shape[-1] ** -0.5
    scan.x_proj_weight.uniform_(-bound, bound)
    bound = scan.dt_projs_weight.shape[-1] ** -0.5
    scan.dt_projs_weight.uniform_(-bound, bound)
    dt = torch.empty_like(scan.dt_projs_bias).uniform_(math.log(dt_min), math.log(dt_max)).exp()
    dt = dt.clamp(min=dt_floor)
    scan.dt_projs_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
    scan.A_logs.copy_(torch.arange(1, scan.A_logs.shape[1] + 1).log().expand_as(scan.A_logs))
    scan.Ds.fill_(1.0)
