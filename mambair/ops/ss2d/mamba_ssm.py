"""ss2d_scan in the published formulation: sequences laid out in memory by transposing, flipping and stacking the image,
then one scan by mamba-ssm's CUDA kernel. The baseline that the other backends are compared with.

Shapes: B batch, H x W pixels, L = H W, D inner channels, K directions, R rank of delta, N states.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mambair.ops.selective_scan.mamba_ssm import selective_scan_mamba_ssm, unavailable_reason

__all__ = ["ss2d_scan_mamba_ssm", "unavailable_reason"]


def ss2d_scan_mamba_ssm(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    directions: int,
    scan: Callable = selective_scan_mamba_ssm,
) -> Tensor:
    """See `ss2d_scan`; the scan computes in float32, the projections in x's type or autocast's.

    `scan` takes the positional arguments of `selective_scan` up to `return_last_state`.
    """
    _, height, width, _ = x.shape
    rank, states = dt_projs_weight.shape[2], A_logs.shape[1]
    sequences = _lay_out(x, directions)  # (B, K, D, L)
    projected = torch.einsum("bkdl,kcd->bkcl", sequences, x_proj_weight.to(x.dtype))
    dt, B, C = projected.split((rank, states, states), dim=2)
    delta = torch.einsum("bkrl,kdr->bkdl", dt, dt_projs_weight.to(dt.dtype))
    y = scan(
        sequences.flatten(1, 2).float(),
        delta.flatten(1, 2).float().contiguous(),
        -torch.exp(A_logs.float()),
        B.float().contiguous(),
        C.float().contiguous(),
        Ds.float(),
        None,
        dt_projs_bias.float().flatten(),
        True,
        False,
    )
    return _add_up(y.view_as(sequences), height, width).to(x.dtype)


def _lay_out(x: Tensor, directions: int) -> Tensor:
    """(B, K, D, L): the image (B, H, W, D) as one sequence per direction."""
    image = x.permute(0, 3, 1, 2)  # (B, D, H, W)
    forward = [image.flatten(2)]
    if directions == 4:
        forward.append(image.transpose(2, 3).flatten(2))
    sequences = torch.stack(forward, dim=1)
    return sequences if directions == 1 else torch.cat((sequences, sequences.flip(-1)), dim=1)


def _add_up(sequences: Tensor, height: int, width: int) -> Tensor:
    """(B, H, W, D): the sum of what `_lay_out` laid out, each sequence back in its place."""
    batch, directions, channels, _ = sequences.shape
    if directions > 1:
        half = directions // 2
        sequences = sequences[:, :half] + sequences[:, half:].flip(-1)
    total = sequences[:, 0].view(batch, channels, height, width)
    if directions == 4:
        total = total + sequences[:, 1].reshape(batch, channels, width, height).transpose(2, 3)
    return total.permute(0, 2, 3, 1).contiguous()
