"""Both halves of a residual state-space block as one operator each: chooses whether they can run, and runs them."""

import torch
from torch import Tensor

from mambair.ops.backends import find_backend
from mambair.ops.direct import may_start_directly

_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def product_type(x: Tensor, parameters: tuple[Tensor, ...]) -> torch.dtype | None:
    """The type that a half's products run in, autocast's if that is on; None where a half cannot run as one operator.

    It can where the scan runs on Triton, with parameters of one type, contiguous and beside x (B, H, W, C), and nothing
    that watches the single steps, see `mambair.ops.direct`.
    """
    device, parameter = x.device, parameters[0].dtype
    if x.dtype not in _TYPES or parameter not in _TYPES or not may_start_directly(x, *parameters):
        return None
    for tensor in parameters:
        if tensor.dtype != parameter or tensor.device != device or not tensor.is_contiguous():
            return None
    kind = device.type
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        found = parameter if x.dtype == parameter else None
    else:
        found = torch.get_autocast_dtype(kind)
    if found not in _TYPES or x.shape[0] * x.shape[1] * x.shape[2] == 0:
        return None
    if find_backend("ss2d_scan", "auto", kind, device.index, found) != "ss2d_scan_triton":
        return None
    return found


def _runs_on_cpu(x: Tensor, parameters: tuple[Tensor, ...], *channels: int) -> bool:
    """Whether a half can run as one operator on the CPU.

    It can where the scan runs on Numba, all in float32, without autocast, with at least a vector of these `channels`.
    """
    if x.device.type != "cpu" or x.numel() == 0 or not may_start_directly(x, *parameters):
        return False
    for tensor in (x, *parameters):
        if tensor.dtype != torch.float32 or tensor.device != x.device:
            return False
    if torch.is_autocast_enabled("cpu") or not all(tensor.is_contiguous() for tensor in parameters):
        return False
    if find_backend("ss2d_scan", "auto", "cpu", None, torch.float32) != "ss2d_scan_numba":
        return False
    # Imported when it is first needed: Numba need not be installed.
    from mambair.ops.cpu.simd import LANES

    return min(channels) >= LANES


def scan_half(
    x: Tensor,
    keep: Tensor | None,
    parameters: tuple[Tensor, ...],
    directions: int,
    norm_eps: float,
    out_norm_eps: float,
) -> Tensor | None:
    """x skip + keep VSSM(LayerNorm(x)) for x (B, H, W, C); None where it takes steps, see `product_type`.

    keep: (B, 1, 1, 1), a factor of each image, or None.  parameters: in the order of `ScanHalfParameters`.
    """
    if _runs_on_cpu(x, parameters, x.shape[3], parameters[3].shape[0]):
        from mambair.ops.rssb.cpu_scan_half import scan_half_cpu

        return scan_half_cpu(x.contiguous(), keep, parameters, norm_eps, out_norm_eps)
    kind = product_type(x, parameters)
    if kind is None:
        return None
    from mambair.ops.rssb.triton_scan_half import ScanHalf, ScanHalfFunction, scan_half_plan

    batch, height, width, channels = x.shape
    _, inner, rank = parameters[6].shape  # of dt_projs
    key = ScanHalf(
        batch,
        height,
        width,
        channels,
        inner,
        parameters[8].shape[1],  # of A_logs
        rank,
        directions,
        x.dtype,
        kind,
        parameters[0].dtype,
        None if keep is None else keep.dtype,
        torch.is_grad_enabled(),
        norm_eps,
        out_norm_eps,
        x.device,
    )
    with torch.cuda.device_of(x):
        return ScanHalfFunction.apply(scan_half_plan(key), x.contiguous(), keep, *parameters)


def local_half(x: Tensor, light: bool, parameters: tuple[Tensor, ...], norm_eps: float) -> Tensor | None:
    """x skip + CAB(LayerNorm(x)) for x (B, H, W, C), `light`: of light networks; None where it takes steps.

    parameters: those of `CommonParameters`, then those of `LightParameters` or `ClassicParameters`.
    """
    if light and _runs_on_cpu(x, parameters, x.shape[3], parameters[8].shape[0]):
        from mambair.ops.rssb.cpu_local_half import local_half_cpu

        return local_half_cpu(x.contiguous(), parameters, norm_eps)
    kind = product_type(x, parameters)
    if kind is None:
        return None
    from mambair.ops.rssb.local_key import LocalHalf
    from mambair.ops.rssb.triton_local_half import LocalHalfFunction, local_half_plan

    batch, height, width, channels = x.shape
    squeezed, hidden, parameter = parameters[3].shape[0], parameters[8].shape[0], parameters[0].dtype
    key = LocalHalf(
        light, batch, height, width, channels, hidden, squeezed, x.dtype, kind, parameter, norm_eps, x.device
    )
    with torch.cuda.device_of(x):
        return LocalHalfFunction.apply(local_half_plan(key), x.contiguous(), *parameters)
