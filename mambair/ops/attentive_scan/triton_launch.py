"""Buffers and launches of attentive_scan's own kernels; triton_kernels.py has the legend of the shapes."""

import torch
import triton
from torch import Tensor

from mambair.ops.attentive_scan import triton_kernels as kernels
from mambair.ops.attentive_scan.reference import token_order
from mambair.ops.ss2d.triton_launch import product_precision

# Values that a program moves; places per program of the prompts' gradients, and its places at a time.
_MOVED = 4096
_SHARE, _ROWS = 1024, 64


def sorted_rows(tokens: Tensor) -> Tensor:
    """(B L): the places of all images, image by image, each image's sorted by token."""
    batch, length = tokens.shape
    # Sorting takes less time for small numbers; there are never as many tokens as these can count.
    order = token_order(tokens.to(torch.int16))
    return order.add_(torch.arange(0, batch * length, length, device=tokens.device)[:, None]).view(-1)


def move_rows(source: Tensor, rows: Tensor, back: bool) -> Tensor:
    """source (B L, D), channels side by side, in the order of `rows`, or back from it; contiguous."""
    count, channels = source.shape
    target = torch.empty(source.shape, dtype=source.dtype, device=source.device)
    block = min(triton.next_power_of_2(channels), 256)
    height = max(1, _MOVED // block)
    with torch.cuda.device_of(source):
        kernels.move_rows_kernel[(triton.cdiv(count, height), triton.cdiv(channels, block))](
            source, rows, target, count, source.stride(0), channels, BACK=back, BR=height, BD=block, num_warps=4
        )
    return target


def add_prompts(projected: Tensor, tokens: Tensor, prompts: Tensor) -> None:
    """Add the prompts (T, N) of the tokens (B L) to the last N columns of projected (B L, P), in place."""
    count, columns = projected.shape
    states = prompts.shape[1]
    with torch.cuda.device_of(projected):
        kernels.add_prompts_kernel[(triton.cdiv(count, 128),)](
            projected, tokens, prompts, count, columns, states, BR=128, BN=triton.next_power_of_2(states), num_warps=4
        )


def prompt_gradients(d_projected: Tensor, tokens: Tensor, prompts: Tensor) -> Tensor:
    """(T, N), fp32: the gradient of the prompts from that of projected (B L, P)."""
    count, columns = d_projected.shape
    tokens_known, states = prompts.shape
    shares = triton.cdiv(count, _SHARE)
    parts = torch.empty(shares, tokens_known, states, dtype=torch.float32, device=d_projected.device)
    block = min(64, max(16, triton.next_power_of_2(tokens_known)))
    with torch.cuda.device_of(d_projected):
        kernels.prompt_gradients_kernel[(shares, triton.cdiv(tokens_known, block))](
            d_projected, tokens, parts, count, _SHARE, tokens_known, columns, states, BR=_ROWS, BT=block,
            BN=max(16, triton.next_power_of_2(states)), num_warps=4,
            PRECISION=product_precision(d_projected.dtype, d_projected.device),
        )  # fmt: skip
    return parts.sum(0)
