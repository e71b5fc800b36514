"""Which device a process computes on, and in which precision."""

import torch

from mambair.errors import UserError


def select_device(num_gpu: int | str = "auto", local_rank: int = 0) -> torch.device:
    """The device of this process: the CPU for `num_gpu` 0, else the GPU of index `local_rank`.

    'auto' takes a GPU where there is one. Makes the GPU the current one. Raises UserError if GPUs are asked for
    by number and there are none, or fewer than processes on this machine.
    """
    if num_gpu == 0 or (num_gpu == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        cause = "this PyTorch is built without CUDA" if torch.version.cuda is None else "no CUDA GPU or driver is found"
        raise UserError(
            f"num_gpu: {num_gpu} asks for CUDA, but {cause}; run on the CPU with --force_yml num_gpu=0 "
            "(there the total batch is batch_size_per_gpu)"
        )
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"num_gpu: process {local_rank + 1} of this machine has no GPU of its own, there are "
            f"{torch.cuda.device_count()}; start at most one process per GPU (torchrun --nproc_per_node)"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def autocast_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """The dtype to autocast to for the option `amp` (auto, none, bf16, fp16), None for full precision.

    auto: bf16 on a GPU that computes in it, fp16 on an older one (training then scales the loss), full precision
    elsewhere. Raises UserError where the device lacks what is asked for.
    """
    has_bf16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if amp == "none" or (amp == "auto" and device.type != "cuda"):
        return None
    if amp == "auto" and not has_bf16:
        amp = "fp16"
    if amp in ("auto", "bf16"):
        if not has_bf16:
            raise UserError("amp: this GPU does not compute in bf16; use fp16, auto or none")
        return torch.bfloat16
    if amp == "fp16":
        if device.type != "cuda":
            raise UserError("amp: fp16 needs a CUDA GPU; use bf16, auto or none")
        return torch.float16
    raise UserError(f"amp: expected auto, none, bf16 or fp16, got '{amp}'")
