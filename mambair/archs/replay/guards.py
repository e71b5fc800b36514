"""Which passes may be replayed: those that nothing but PyTorch's own autograd watches."""

import os
import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._device import DeviceContext

from mambair.ops.backends import ENVIRONMENT_VARIABLE
from mambair.ops.direct import may_start_directly

SWITCH = "MAMBAIR_CUDA_GRAPHS"
"""Environment variable: 0 for no graphs in any network that has no say of its own, 1 for all."""


class _Local(threading.local):
    paused = False


Local = _Local()


def may_replay(x: Any) -> bool:
    """Whether a pass with this input could be replayed: on a GPU, and with nobody looking on."""
    return (
        isinstance(x, Tensor)
        and not _functions_are_watched()  # before anything is asked of the tensor
        and x.is_cuda
        and may_start_directly(x)
        and x.ndim == 4
        and x.layout == torch.strided
        and x.numel() > 0
        and not Local.paused
        and forward_ad._current_level < 0
        and not torch.is_anomaly_enabled()
        and not torch.cuda.is_current_stream_capturing()
    )


def _functions_are_watched() -> bool:
    """Whether a mode of `torch.overrides` is on, other than a default device."""
    modes = range(torch._C._len_torch_function_stack())
    return any(type(torch._C._get_function_stack_at(place)) is not DeviceContext for place in modes)


def needs_gradients(network: nn.Module, x: Tensor) -> bool:
    """Whether autograd has to be able to go back through the pass."""
    if not torch.is_grad_enabled():
        return False
    return x.requires_grad or any(parameter.requires_grad for parameter in network.parameters())


def switched_on(network: nn.Module, wants_gradients: bool) -> bool:
    """What the network says, else the environment, else the network's class."""
    if os.environ.get("CUDA_LAUNCH_BLOCKING") == "1":  # somebody looks for an error, kernel by kernel
        return False
    name = "replays_steps" if wants_gradients else "replays_graphs"
    said = network.__dict__.get(name)
    if said is None:
        said = {"0": False, "1": True}.get(os.environ.get(SWITCH, ""))
    return bool(getattr(network, name, False) if said is None else said)


def circumstances(x: Tensor) -> tuple[Any, ...]:
    """What decides how operators run besides the network: the input's kind, and the settings of PyTorch."""
    return (
        x.device,
        x.shape,
        x.stride(),
        x.dtype,
        x.requires_grad,
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cuda"),
        torch.get_autocast_dtype("cuda"),
        torch.get_default_dtype(),
        *_precision(),
        torch._C._get_cublas_allow_fp16_reduced_precision_reduction(),
        torch._C._get_cublas_allow_bf16_reduced_precision_reduction(),
        torch.backends.cudnn.enabled,
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.are_deterministic_algorithms_enabled(),
        os.environ.get(ENVIRONMENT_VARIABLE),
    )


def _precision() -> tuple[Any, Any]:
    """Of float32 in matrix products and convolutions."""
    newer = getattr(torch._C, "_get_fp32_precision_getter", None)
    if newer is not None:  # the older functions raise where somebody uses the newer settings
        return newer("cuda", "matmul"), newer("cuda", "conv")
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
