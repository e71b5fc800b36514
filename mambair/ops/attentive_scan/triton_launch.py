"""Buffers and launches of attentive_scan's own kernels; triton_kernels.py has the legend of the shapes."""

import functools

import torch
import triton
from torch import Tensor

from mambair.ops.attentive_scan import triton_kernels as kernels
from mambair.ops.attentive_scan.reference import token_order
from mambair.ops.launching import PreparedKernel
from mambair.ops.ss2d.triton_launch import product_precision

# Values that a program moves; places per program of the prompts' gradients, and its places at a time.
_MOVED = 4096
_SHARE, _ROWS = 1024, 64
Dtype = torch.dtype


def sorted_rows(tokens: Tensor) -> Tensor:
    """(B L): the places of all images, image by image, each image's sorted by token."""
    batch, length = tokens.shape
    # Sorting takes less time for small numbers; there are never as many tokens as these can count.
    order = token_order(tokens.to(torch.int16))
    return order.add_(torch.arange(0, batch * length, length, device=tokens.device)[:, None]).view(-1)


@functools.lru_cache(maxsize=512)
def _move(
    count: int, channels: int, stride: int, back: bool, kind: Dtype, rows: Dtype, device: torch.device
) -> PreparedKernel:
    block = min(triton.next_power_of_2(channels), 256)
    height = max(1, _MOVED // block)
    grid = (triton.cdiv(count, height), triton.cdiv(channels, block))
    options = {"BACK": back, "BR": height, "BD": block, "num_warps": 4}
    return PreparedKernel(
        kernels.move_rows_kernel, grid, (kind, rows, kind), (count, stride, channels), device, options
    )


def move_rows(source: Tensor, rows: Tensor, back: bool) -> Tensor:
    """source (B L, D), channels side by side, in the order of `rows`, or back from it; contiguous."""
    count, channels = source.shape
    target = torch.empty(source.shape, dtype=source.dtype, device=source.device)
    start = _move(count, channels, source.stride(0), back, source.dtype, rows.dtype, source.device)
    with torch.cuda.device_of(source):
        start(source.data_ptr(), rows.data_ptr(), target.data_ptr())
    return target


@functools.lru_cache(maxsize=512)
def _add(
    count: int, columns: int, states: int, kind: Dtype, tokens: Dtype, prompts: Dtype, device: torch.device
) -> PreparedKernel:
    options = {"BR": 128, "BN": triton.next_power_of_2(states), "num_warps": 4}
    return PreparedKernel(
        kernels.add_prompts_kernel, (triton.cdiv(count, 128),), (kind, tokens, prompts), (count, columns, states),
        device, options,
    )  # fmt: skip


def add_prompts(projected: Tensor, tokens: Tensor, prompts: Tensor) -> None:
    """Add the prompts (T, N) of the tokens (B L) to the last N columns of projected (B L, P), in place.

    All are contiguous.
    """
    start = _add(
        *projected.shape, prompts.shape[1], projected.dtype, tokens.dtype, prompts.dtype, projected.device
    )  # fmt: skip
    with torch.cuda.device_of(projected):
        start(projected.data_ptr(), tokens.data_ptr(), prompts.data_ptr())


@functools.lru_cache(maxsize=512)
def _sum_prompts(
    count: int, columns: int, known: int, states: int, kind: Dtype, tokens: Dtype, device: torch.device
) -> PreparedKernel:
    block = min(64, max(16, triton.next_power_of_2(known)))
    options = {
        "BR": _ROWS, "BT": block, "BN": max(16, triton.next_power_of_2(states)), "num_warps": 4,
        "PRECISION": product_precision(kind, device),
    }  # fmt: skip
    return PreparedKernel(
        kernels.prompt_gradients_kernel, (triton.cdiv(count, _SHARE), triton.cdiv(known, block)),
        (kind, tokens, torch.float32), (count, _SHARE, known, columns, states), device, options,
    )  # fmt: skip


def prompt_gradients(d_projected: Tensor, tokens: Tensor, prompts: Tensor) -> Tensor:
    """(T, N), fp32: the gradient of the prompts from that of projected (B L, P); all are contiguous."""
    count, columns = d_projected.shape
    parts = torch.empty(triton.cdiv(count, _SHARE), *prompts.shape, dtype=torch.float32, device=d_projected.device)
    start = _sum_prompts(count, columns, *prompts.shape, d_projected.dtype, tokens.dtype, d_projected.device)
    with torch.cuda.device_of(d_projected):
        start(d_projected.data_ptr(), tokens.data_ptr(), parts.data_ptr())
    return parts.sum(0)
