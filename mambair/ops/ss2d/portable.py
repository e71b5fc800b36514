"""ss2d_scan in standard operators, for devices without kernels of their own and for export.

Shapes: B batch, H x W pixels, L = H W, D inner channels, K directions, R rank of delta, N states, M chunks of T
positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair.ops.backends import compute_dtype, without_autocast
from mambair.ops.ss2d.reference import direction_orders
from mambair.ops.symbolic import scans_are_symbolic, ss2d_node
from mambair.ops.two_level import cut, softplus, two_level_scan


def unavailable_reason(device: torch.device) -> None:
    """None: standard operators run everywhere."""


def ss2d_scan_portable(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    directions: int,
) -> Tensor:
    """See `ss2d_scan`."""
    dtype = compute_dtype(x.dtype)
    x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds = (
        parameter.to(dtype) for parameter in (x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    )
    batch, height, width, channels = x.shape
    rank, states = dt_projs_weight.shape[2], A_logs.shape[1]
    A = -torch.exp(A_logs).view(directions, channels, states).transpose(1, 2)  # (K, N, D)
    with without_autocast(x.device.type):
        pixels = x.to(dtype).reshape(batch * height * width, channels)
        visited, positions = _places(batch, height, width, A)
        weights, dt_weights = x_proj_weight.transpose(1, 2), dt_projs_weight.transpose(1, 2)

        def prepare(position: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            (u,) = position  # (..., K, M, D)
            dt, B, C = (u @ weights).split((rank, states, states), dim=-1)
            delta = softplus(dt @ dt_weights + dt_projs_bias[:, None])
            return delta, delta * u, B, C

        if scans_are_symbolic():
            y = ss2d_node(pixels, visited, weights, dt_weights, dt_projs_bias[:, None], A, states)
        else:
            y, _ = two_level_scan(prepare, (_rows(pixels, visited),), A)  # (T, B, K, M, D)
        y = _rows(y.flatten(0, 3), positions).sum(dim=1) + Ds.view(directions, channels).sum(dim=0) * pixels
    return y.view(batch, height, width, channels).to(x.dtype)


def _rows(source: Tensor, numbers: Tensor) -> Tensor:
    """(rows, X) and numbers (...) -> (..., X); written so that it is exported as Gather, which copies whole rows."""
    return source.index_select(0, numbers.flatten()).view(*numbers.shape, -1)


def _places(batch: int, height: int, width: int, A: Tensor) -> tuple[Tensor, Tensor]:
    """Which pixels the scan by A (K, N, D) visits, and where each pixel's outputs are in the scan's.

    Returns (T, B, K, M) numbers of rows of (B L, ...), and (B L, K) numbers of rows of (T B K M, ...). Behind the
    last position, where L is no multiple of M, the first pixel is visited again: nothing that counts comes after it.
    """
    directions, device = A.shape[0], A.device
    length = height * width
    chunks, steps = cut(length, A.numel())
    direction = torch.arange(directions, device=device)
    image = torch.arange(batch, device=device)
    orders = direction_orders(height, width, directions, device)  # (K, L)
    orders = F.pad(orders, (0, chunks * steps - length)).view(directions, chunks, steps).permute(2, 0, 1)
    visited = orders[:, None] + length * image[:, None, None]  # (T, B, K, M)

    rows = torch.arange(steps, device=device) * (batch * directions * chunks)
    rows = (torch.arange(chunks, device=device)[:, None] + rows).flatten()  # of each position, for the first direction
    rows = rows[_inverse_orders(height, width, directions, device)] + chunks * direction[:, None]  # (K, L)
    return visited, (rows + directions * chunks * image[:, None, None]).transpose(1, 2).reshape(-1, directions)


def _inverse_orders(height: int, width: int, directions: int, device: torch.device) -> Tensor:
    """(K, L): for each direction, at which position it visits each pixel."""
    last = height * width - 1
    rows = torch.arange(height * width, device=device)
    # The position of pixel (i, j) in column order is that of (j, i) in row order of the transposed image.
    columns = rows.view(width, height).t().reshape(-1)
    positions = {1: (rows,), 2: (rows, last - rows), 4: (rows, columns, last - rows, last - columns)}
    return torch.stack(positions[directions])
