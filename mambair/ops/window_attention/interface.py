"""window_attention: checks its arguments and hands them to a backend.

Shapes: B images, H x W pixels, w window size, h heads of d channels, C = h d.
"""

import importlib
from collections.abc import Callable

import torch
from torch import Tensor

from mambair.errors import UserError
from mambair.ops.backends import find_backend
from mambair.ops.window_attention.reference import window_attention_reference

_FUNCTIONS: dict[str, Callable[..., Tensor]] = {"reference": window_attention_reference}


def window_attention(qkv: Tensor, bias_table: Tensor, window_size: int, shift: int = 0) -> Tensor:
    """Attention of every pixel to the pixels of its window, by several heads.

    The image is cut into w x w windows; with `shift`, after it has been rolled up and left by that many pixels, and
    pixels that only the rolling made neighbours do not see each other. The score of query (i, j) and key (k, l) is
    q . k / sqrt(d) + bias_table[(i - k + w - 1) (2w - 1) + j - l + w - 1].

    Arguments, real floating point and on one device:
        qkv: (B, H, W, 3C), queries, keys and values, each with one head after the other; H and W are multiples of w.
        bias_table: ((2w - 1)^2, h).  shift: 0 <= shift < w.

    Returns (B, H, W, C), contiguous, in qkv's type, in the places of the queries. Gradients reach both tensors.
    Where the scan runs on Numba, so does this, in float32; where on Triton, for windows of at most 256 pixels on GPUs
    with room. Elsewhere, and for float64, it is PyTorch's scaled_dot_product_attention. Raises UserError for arguments
    that do not fit.
    """
    _check(qkv, bias_table, window_size, shift)
    channels = qkv.shape[3] // (3 * bias_table.shape[1])
    chosen = _choose(qkv.device.type, qkv.device.index, qkv.dtype, window_size, channels)
    return _FUNCTIONS[chosen](qkv, bias_table, window_size, shift)


def _choose(device_type: str, device_index: int | None, dtype: torch.dtype, window_size: int, channels: int) -> str:
    """Key in _FUNCTIONS for tensors of this device and type: what can run the scan's kernels can run these."""
    backend = find_backend("attentive_scan", "auto", device_type, device_index, dtype)
    # Modules are imported when they are first needed: neither numba nor Triton need be installed.
    if backend == "attentive_scan_numba":
        module = importlib.import_module("mambair.ops.window_attention.numba_cpu")
        _FUNCTIONS["numba"] = module.window_attention_numba
        return "numba"
    if backend != "attentive_scan_triton":
        return "reference"
    module = importlib.import_module("mambair.ops.window_attention.triton_cuda")
    _FUNCTIONS["triton"] = module.window_attention_triton
    device = torch.device(device_type, device_index or 0)
    return "triton" if module.tiles_for(window_size, channels, dtype, device) else "reference"


# See `mambair.ops.backends`: torch.compiler.assume_constant_result without importing the compiler.
_choose.__dict__["_dynamo_marked_constant"] = True


def _check(qkv: Tensor, bias_table: Tensor, window_size: int, shift: int) -> None:
    if window_size < 1 or not 0 <= shift < window_size:
        raise UserError(f"window_attention: shift must lie in [0, {window_size}), got {shift}")
    if qkv.dim() != 4 or 0 in qkv.shape or qkv.shape[1] % window_size or qkv.shape[2] % window_size:
        raise UserError(
            f"window_attention: qkv must be (B, H, W, 3C) with H and W multiples of {window_size}, "
            f"got {tuple(qkv.shape)}"
        )
    if bias_table.dim() != 2 or bias_table.shape[0] != (2 * window_size - 1) ** 2:
        raise UserError(
            f"window_attention: bias_table must be ({(2 * window_size - 1) ** 2}, heads) for windows of {window_size}, "
            f"got {tuple(bias_table.shape)}"
        )
    if qkv.shape[3] % (3 * bias_table.shape[1]):
        raise UserError(
            f"window_attention: the {qkv.shape[3]} channels of qkv are not 3 times those of {bias_table.shape[1]} heads"
        )
    if bias_table.device != qkv.device:
        raise UserError(
            f"window_attention: bias_table is on {bias_table.device} and qkv on {qkv.device}; move them together"
        )
