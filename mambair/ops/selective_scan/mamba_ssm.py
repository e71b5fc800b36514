"""selective_scan by the CUDA kernel of the mamba-ssm package."""

import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor

BUILD_COMMAND = "MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation mamba-ssm"


def unavailable_reason(device: torch.device) -> str | None:
    """Why this backend cannot run on `device`, or None."""
    if device.type != "cuda":
        return f"it runs on NVIDIA GPUs and the tensors are on {device}; use backend 'numba' on the CPU"
    if importlib.util.find_spec("mamba_ssm") is None:
        return f"mamba-ssm is not installed; build it, which needs nvcc, with: {BUILD_COMMAND}"
    # The package installs without its kernels unless told otherwise; they are a module of their own.
    if importlib.util.find_spec("selective_scan_cuda") is None:
        return f"mamba-ssm is installed without its CUDA scan; build it, which needs nvcc, with: {BUILD_COMMAND}"
    return None


def selective_scan_mamba_ssm(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    return_last_state: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    """See `selective_scan`; B and C are (B, G, N, L). Computes in float32.

    mamba-ssm gives no gradient to the last state: it is detached here, so that asking for one is an error.
    """
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    tensors = (None if tensor is None else tensor.float() for tensor in (u, delta, A, B, C, D))
    bias = None if delta_bias is None else delta_bias.float()
    with torch.autocast(u.device.type, enabled=False):
        y, last_state = selective_scan_fn(
            *tensors, delta_bias=bias, delta_softplus=delta_softplus, return_last_state=True
        )
        if z is not None:
            y = y * F.silu(z.float())
    y = y.to(u.dtype)
    return (y, last_state.detach()) if return_last_state else y
