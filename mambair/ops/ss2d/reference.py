"""ss2d_scan in plain PyTorch: the definition that the other backends are tested against.

Shapes: B batch, H x W pixels, L = H W, D inner channels, K directions, R rank of delta, N states.
"""

import torch
from torch import Tensor

from mambair.ops.backends import compute_dtype
from mambair.ops.selective_scan.reference import selective_scan_reference


def unavailable_reason(device: torch.device) -> None:
    """None: the reference runs everywhere."""


def direction_orders(height: int, width: int, directions: int, device: torch.device) -> Tensor:
    """(K, L): for each direction, the row-major numbers of the pixels in the order in which it visits them."""
    rows = torch.arange(height * width, device=device)
    columns = rows.view(height, width).t().reshape(-1)
    orders = {1: (rows,), 2: (rows, rows.flip(0)), 4: (rows, columns, rows.flip(0), columns.flip(0))}
    return torch.stack(orders[directions])


def ss2d_scan_reference(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    directions: int,
) -> Tensor:
    """See `ss2d_scan`. Autograd differentiates it, keeping every state."""
    dtype = compute_dtype(x.dtype)
    x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds = (
        parameter.to(dtype) for parameter in (x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    )
    batch, height, width, channels = x.shape
    rank, states = dt_projs_weight.shape[2], A_logs.shape[1]
    orders = direction_orders(height, width, directions, x.device)
    pixels = x.to(dtype).reshape(batch, height * width, channels).transpose(1, 2)  # (B, D, L)
    with torch.autocast(x.device.type, enabled=False):
        sequences = pixels[:, :, orders].transpose(1, 2)  # (B, K, D, L)
        projected = torch.einsum("krd,bkdl->bkrl", x_proj_weight, sequences)
        dt, B, C = projected.split((rank, states, states), dim=2)
        delta = torch.einsum("kdr,bkrl->bkdl", dt_projs_weight, dt)
        y = selective_scan_reference(
            sequences.flatten(1, 2),
            delta.flatten(1, 2),
            -torch.exp(A_logs),
            B,
            C,
            Ds,
            None,
            dt_projs_bias.flatten(),
            delta_softplus=True,
            return_last_state=False,
        )
        assert isinstance(y, Tensor)
        y = y.view_as(sequences)
    output = torch.zeros_like(pixels)
    for k, order in enumerate(orders):
        output = output.index_add(2, order, y[:, k])
    return output.transpose(1, 2).reshape(batch, height, width, channels).to(x.dtype)
