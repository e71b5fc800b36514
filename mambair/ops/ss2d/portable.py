"""ss2d_scan in standard operators, for devices without kernels of their own and for export.

Shapes: B batch, H x W pixels, L = H W, D inner channels, K directions, R rank of delta, N states, M chunks of T
positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair.ops.backends import compute_dtype
from mambair.ops.ss2d.reference import direction_orders
from mambair.ops.two_level import chunk_count, softplus, two_level_scan


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
    with torch.autocast(x.device.type, enabled=False):
        pixels = x.to(dtype).reshape(batch * height * width, channels)
        # A pixel's projections do not depend on the order of the pixels.
        projected = torch.matmul(pixels, x_proj_weight.transpose(1, 2))  # (K, B L, R + 2N)
        dt, B, C = projected.split((rank, states, states), dim=2)
        delta = softplus(torch.matmul(dt, dt_projs_weight.transpose(1, 2)) + dt_projs_bias[:, None])  # (K, B L, D)
        visited, positions = _places(batch, height, width, directions, x.device)
        delta, input, B, C = (each.flatten(0, 1)[visited] for each in (delta, delta * pixels, B, C))
        y, _ = two_level_scan(delta, input, A, B, C)  # (T, B, K, M, D)
        y = y.flatten(0, 3)[positions].sum(dim=1) + Ds.view(directions, channels).sum(dim=0) * pixels
    return y.view(batch, height, width, channels).to(x.dtype)


def _places(batch: int, height: int, width: int, directions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where the scan's inputs are found among all directions' pixels, and each pixel's outputs in the scan.

    Returns (T, B, K, M) numbers of rows of (K B L, ...), and (B L, K) numbers of rows of (T B K M, ...). Behind the
    last position, where L is no multiple of M, the first pixel is visited again: nothing that counts comes after it.
    """
    length = height * width
    chunks = chunk_count(length)
    steps = (length + chunks - 1) // chunks
    direction = torch.arange(directions, device=device)
    image = torch.arange(batch, device=device)
    orders = direction_orders(height, width, directions, device)  # (K, L)
    orders = F.pad(orders, (0, chunks * steps - length)).view(directions, chunks, steps).permute(2, 0, 1)[:, None]
    visited = orders + length * (image[:, None] + batch * direction)[:, :, None]

    # The position of pixel (i, j) in column order is that of (j, i) in row order of the transposed image.
    position = _inverse_orders(height, width, directions, device)  # (K, L)
    chunk, step = position // steps, position % steps
    row = ((step * batch + image[:, None, None]) * directions + direction[:, None]) * chunks + chunk  # (B, K, L)
    return visited, row.transpose(1, 2).reshape(-1, directions)


def _inverse_orders(height: int, width: int, directions: int, device: torch.device) -> Tensor:
    """(K, L): for each direction, at which position it visits each pixel."""
    last = height * width - 1
    rows = torch.arange(height * width, device=device)
    columns = rows.view(width, height).t().reshape(-1)
    positions = {1: (rows,), 2: (rows, last - rows), 4: (rows, columns, last - rows, last - columns)}
    return torch.stack(positions[directions])
