"""selective_scan in plain PyTorch: the definition that the other backends are tested against.

Shapes: B batch, D channels, L length, N states, G groups of D/G channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair.ops.backends import compute_dtype


def unavailable_reason(device: torch.device) -> None:
    """None: the reference runs everywhere."""


def selective_scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    return_last_state: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    """See `selective_scan`; B and C are (B, G, N, L). Autograd differentiates it, keeping every state."""
    dtype = compute_dtype(u.dtype)
    with torch.autocast(u.device.type, enabled=False):
        u_, delta, A, B, C = (tensor.to(dtype) for tensor in (u, delta, A, B, C))
        if delta_bias is not None:
            delta = delta + delta_bias.to(dtype)[:, None]
        if delta_softplus:
            delta = F.softplus(delta)
        y, state = _recurrence(u_, delta, A, B, C)
        if D is not None:
            y = y + D.to(dtype)[:, None] * u_
        if z is not None:
            y = y * F.silu(z.to(dtype))
    y = y.to(u.dtype)
    return (y, state) if return_last_state else y


def _recurrence(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """y[t] = C[t] h[t] with h[t] = exp(delta[t] A) h[t-1] + delta[t] B[t] u[t]; returns (y, last h)."""
    batch, channels, length = u.shape
    groups = B.shape[1]
    state = u.new_zeros(batch, channels, A.shape[1])  # (B, D, N)
    outputs = []
    for t in range(length):
        B_t = B[..., t].repeat_interleave(channels // groups, dim=1)  # (B, D, N)
        C_t = C[..., t].repeat_interleave(channels // groups, dim=1)
        decay = torch.exp(delta[:, :, t, None] * A)
        state = decay * state + (delta[:, :, t] * u[:, :, t])[:, :, None] * B_t
        outputs.append((state * C_t).sum(dim=-1))
    return torch.stack(outputs, dim=-1), state
