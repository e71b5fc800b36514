"""depthwise_conv: checks its arguments and chooses between PyTorch's convolution and the Triton and Numba kernels.

Shapes: B images, H x W pixels, C channels, k sides of the weights.
"""

import importlib
from collections.abc import Callable

import torch
from torch import Tensor

from mambair.errors import UserError
from mambair.ops.backends import find_backend
from mambair.ops.depthwise.reference import depthwise_conv_reference

_FUNCTIONS: dict[str, Callable] = {"reference": depthwise_conv_reference}


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int = 1, silu: bool = False) -> Tensor:
    """The depthwise convolution of a channels-last image, then SiLU if `silu`; zeros outside of the image.

    Arguments, all real floating point and on one device:
        x: (B, H, W, C), any strides; channels that lie side by side, as in a slice of a wider tensor, are not copied.
        weight: (C, 1, k, k), as nn.Conv2d keeps it; k is odd.  bias: (C,) or None.
        dilation: pixels between neighbours, at least 1; the padding is as wide, so the size stays.

    Returns (B, H, W, C), contiguous, in x's type, or under autocast in autocast's. Gradients reach x, weight and bias.
    Where the scan runs on Triton, so does this, with sums in float32; where it runs on Numba, what
    `can_train` accepts does; everywhere else, and for float64, PyTorch's convolution does it. MAMBAIR_SCAN_BACKEND
    chooses for both. Raises UserError for arguments that do not fit.
    """
    _check(x, weight, bias, dilation)
    chosen = _choose(x.device.type, x.device.index, x.dtype, weight.shape[2])
    if chosen == "numba" and not _can_use_numba(x, weight, bias):
        chosen = "reference"
    return _FUNCTIONS[chosen](x, weight, bias, dilation, silu)


def _choose(device_type: str, device_index: int | None, dtype: torch.dtype, size: int) -> str:
    """Key in _FUNCTIONS for tensors of this device and type: what can run the scan's kernels can run these."""
    scan = find_backend("ss2d_scan", "auto", device_type, device_index, dtype)
    # Imported when it is first needed: neither Numba nor Triton need be installed.
    if scan == "ss2d_scan_numba":
        _FUNCTIONS["numba"] = importlib.import_module("mambair.ops.depthwise.numba_cpu").depthwise_conv_numba
        return "numba"
    if scan != "ss2d_scan_triton":
        return "reference"
    if size != 3:
        _FUNCTIONS["triton, wide"] = importlib.import_module("mambair.ops.depthwise.wide_cuda").depthwise_conv_wide
        return "triton, wide"
    _FUNCTIONS["triton"] = importlib.import_module("mambair.ops.depthwise.triton_cuda").depthwise_conv_triton
    return "triton"


# See `mambair.ops.backends`: torch.compiler.assume_constant_result without importing the compiler.
_choose.__dict__["_dynamo_marked_constant"] = True


def _can_use_numba(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """False while something is compiled or exported: it sees PyTorch's convolution."""
    if torch.compiler.is_compiling():
        return False
    from mambair.ops.depthwise.numba_cpu import can_train

    return can_train(x, weight, bias)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> None:
    if dilation < 1:
        raise UserError(f"depthwise_conv: dilation must be at least 1, got {dilation}")
    if x.dim() != 4 or 0 in x.shape:
        raise UserError(f"depthwise_conv: x must be (B, H, W, C) and not empty, got {tuple(x.shape)}")
    channels, size = x.shape[3], weight.shape[-1]
    if weight.dim() != 4 or size % 2 == 0:
        raise UserError(f"depthwise_conv: weight must be (C, 1, k, k) with an odd k, got {tuple(weight.shape)}")
    expected = {"x": (x, tuple(x.shape)), "weight": (weight, (channels, 1, size, size)), "bias": (bias, (channels,))}
    for name, (tensor, shape) in expected.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise UserError(
                f"depthwise_conv: {name} must be {shape} for {channels} channels, got {tuple(tensor.shape)}"
            )
        if not tensor.is_floating_point():
            raise UserError(f"depthwise_conv: {name} must be real floating point, got {tensor.dtype}")
        if tensor.device != x.device:
            raise UserError(f"depthwise_conv: {name} is on {tensor.device} and x on {x.device}; move them together")
