"""selective_scan in standard operators, for devices without kernels of their own and for export.

Shapes: B batch, D channels, L length, N states, G groups of E = D/G channels, M chunks of T positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair.ops.backends import compute_dtype
from mambair.ops.two_level import chunk_count, softplus, two_level_scan


def unavailable_reason(device: torch.device) -> None:
    """None: standard operators run everywhere."""


def selective_scan_portable(
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
    """See `selective_scan`; B and C are (B, G, N, L)."""
    dtype = compute_dtype(u.dtype)
    batch, channels, length = u.shape
    groups, states = B.shape[1], A.shape[1]
    with torch.autocast(u.device.type, enabled=False):
        u_, delta, A, B, C = (tensor.to(dtype) for tensor in (u, delta, A, B, C))
        if delta_bias is not None:
            delta = delta + delta_bias.to(dtype)[:, None]
        if delta_softplus:
            delta = softplus(delta)
        decays = A.view(groups, channels // groups, states).transpose(1, 2)  # (G, N, E)
        delta_chunks, input_chunks = (_to_chunks(tensor, groups) for tensor in (delta, delta * u_))
        B_chunks, C_chunks = (_to_chunks(tensor.flatten(1, 2), groups) for tensor in (B, C))
        y, state = two_level_scan(delta_chunks, input_chunks, decays, B_chunks, C_chunks)
        y = y.permute(1, 2, 4, 3, 0).reshape(batch, channels, -1)[..., :length]
        if D is not None:
            y = y + D.to(dtype)[:, None] * u_
        if z is not None:
            y = y * F.silu(z.to(dtype))
    y = y.to(u.dtype)
    return (y, state.transpose(2, 3).reshape(batch, channels, states)) if return_last_state else y


def _to_chunks(sequence: Tensor, groups: int) -> Tensor:
    """(B, G X, L) -> (T, B, G, M, X). The end is filled with zeros, which leave the state as it is."""
    batch, channels, length = sequence.shape
    chunks = chunk_count(length)
    steps = (length + chunks - 1) // chunks
    padded = F.pad(sequence, (0, chunks * steps - length))
    return padded.reshape(batch, groups, channels // groups, chunks, steps).permute(4, 0, 1, 3, 2)
