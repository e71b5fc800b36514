"""selective_scan in standard operators, for devices without kernels of their own and for export.

Shapes: B batch, D channels, L length, N states, G groups of E = D/G channels, M chunks of T positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair.ops.backends import compute_dtype, without_autocast
from mambair.ops.symbolic import scans_are_symbolic, selective_node
from mambair.ops.two_level import cut, softplus, two_level_scan


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
    with without_autocast(u.device.type):
        u_, delta, A, B, C = (tensor.to(dtype) for tensor in (u, delta, A, B, C))
        bias = None if delta_bias is None else delta_bias.to(dtype).view(groups, 1, -1)

        def prepare(position: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            u, delta, B, C = position  # (..., G, M, E or N)
            if bias is not None:
                delta = delta + bias
            if delta_softplus:
                delta = softplus(delta)
            return delta, delta * u, B, C

        sequences = tuple(_to_chunks(each, groups, A.numel()) for each in (u_, delta, B.flatten(1, 2), C.flatten(1, 2)))
        decays = A.view(groups, channels // groups, states).transpose(1, 2)  # (G, N, E)
        if scans_are_symbolic():
            y, state = selective_node(sequences, bias, decays, delta_softplus)
        else:
            y, state = two_level_scan(prepare, sequences, decays)
        y = y.permute(1, 2, 4, 3, 0).reshape(batch, channels, -1)[..., -length:]
        if D is not None:
            y = y + D.to(dtype)[:, None] * u_
        if z is not None:
            y = y * F.silu(z.to(dtype))
    y = y.to(u.dtype)
    return (y, state.transpose(2, 3).reshape(batch, channels, states)) if return_last_state else y


def _to_chunks(sequence: Tensor, groups: int, states: int) -> Tensor:
    """(B, G X, L) -> (T, B, G, M, X), for a scan whose state has `states` numbers.

    Zeros come before the first position, whose state they leave empty.
    """
    batch, channels, length = sequence.shape
    chunks, steps = cut(length, states)
    padded = F.pad(sequence, (chunks * steps - length, 0))
    return padded.reshape(batch, groups, channels // groups, chunks, steps).permute(4, 0, 1, 3, 2)
