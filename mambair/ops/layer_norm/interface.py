"""layer_norm: chooses between PyTorch's and the Triton kernels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair.ops.backends import find_backend
from mambair.ops.direct import may_start_directly

_TYPES = (torch.float32, torch.bfloat16, torch.float16)
# A row of all channels lies in the registers of one program.
_MAX_CHANNELS = 1024


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, for_products: bool) -> Tensor:
    """LayerNorm of x (..., C) over C, with weight and bias (C).

    The result has the type of `F.layer_norm`'s, float32 under autocast. `for_products`: what takes it rounds it to
    autocast's type, as linear layers and convolutions do; then it may have that type already.

    Where the scan runs on Triton and nothing watches the call, so does this: on an H200 PyTorch's gradients of weight
    and bias took two fifths of a training step of a light MambaIRv2.
    """
    kinds = _types(x, weight, bias, for_products)
    if kinds is None:
        return F.layer_norm(x, (x.shape[-1],), weight, bias, eps)
    from mambair.ops.layer_norm.triton_cuda import LayerNorm, LayerNormFunction, layer_norm_plan

    channels = x.shape[-1]
    key = LayerNorm(x.numel() // channels, channels, eps, x.dtype, weight.dtype, kinds, x.device)
    with torch.cuda.device_of(x):
        return LayerNormFunction.apply(layer_norm_plan(key), x.contiguous(), weight, bias)


def _types(x: Tensor, weight: Tensor, bias: Tensor, for_products: bool) -> torch.dtype | None:
    """The result's type; None where the kernels do not run."""
    kind, parameter = x.device.type, weight.dtype
    if x.dtype not in _TYPES or parameter not in _TYPES or bias.dtype != parameter:
        return None
    if x.numel() == 0 or x.shape[-1] > _MAX_CHANNELS or not may_start_directly(x, weight, bias):
        return None
    if not (weight.is_contiguous() and bias.is_contiguous() and weight.device == bias.device == x.device):
        return None
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        found = torch.get_autocast_dtype(kind) if for_products else torch.float32
    elif x.dtype == parameter:
        found = parameter
    else:
        return None
    if find_backend("ss2d_scan", "auto", kind, x.device.index, x.dtype) != "ss2d_scan_triton":
        return None
    return found
