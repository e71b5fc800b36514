"""Golden cases and random problems shared by the operator tests."""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "golden"

SCAN_CASES = ("scan64_main", "scan64_L1", "scan64_large_delta")
SS2D_CASES = ("ss2d_square_expand2", "ss2d_5x9_expand1.2_N10")
SCAN_INPUTS = ("u", "delta", "A", "B", "C", "D", "delta_bias")
SS2D_INPUTS = ("x", "x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")


def load_golden(name: str, dtype: torch.dtype) -> tuple[dict, dict[str, Tensor]]:
    """(meta, arrays as tensors of `dtype`) of one golden file."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        meta = json.loads(str(arrays["meta"]))
        return meta, {key: torch.from_numpy(arrays[key]).to(dtype) for key in arrays.files if key != "meta"}


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value; inf if anything found is not finite."""
    if not torch.isfinite(found).all():
        return float("inf")
    scale = expected.abs().max().item()
    return (found.double() - expected.double()).abs().max().item() / (scale if scale > 0 else 1.0)


def random_scan(
    generator: torch.Generator,
    *,
    batch: int = 2,
    channels: int = 6,
    length: int = 37,
    states: int = 5,
    groups: int = 2,
) -> dict[str, Tensor]:
    """Arguments of selective_scan in float64, with every optional one."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "u": normal(batch, channels, length),
        "delta": 0.5 * normal(batch, channels, length),
        "A": -torch.exp(0.5 * normal(channels, states)),
        "B": normal(batch, groups, states, length),
        "C": normal(batch, groups, states, length),
        "D": normal(channels),
        "z": normal(batch, channels, length),
        "delta_bias": normal(channels) - 1.0,
    }


def random_ss2d(
    generator: torch.Generator,
    *,
    batch: int = 2,
    height: int = 5,
    width: int = 7,
    channels: int = 6,
    states: int = 4,
    rank: int = 2,
    directions: int = 4,
) -> dict[str, Tensor]:
    """Arguments of ss2d_scan in float64."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "x": normal(batch, height, width, channels),
        "x_proj_weight": normal(directions, rank + 2 * states, channels) / channels**0.5,
        "dt_projs_weight": normal(directions, channels, rank) / rank**0.5,
        "dt_projs_bias": normal(directions, channels) - 2.0,
        "A_logs": torch.log(torch.arange(1.0, states + 1)).double() + 0.1 * normal(directions * channels, states),
        "Ds": normal(directions * channels),
    }


def leaves(arguments: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The same values as new tensors of `dtype` that ask for gradients."""
    return {name: tensor.detach().to(dtype).clone().requires_grad_() for name, tensor in arguments.items()}


def gradients(output: Tensor, weights: Tensor, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of (output * weights).sum() by input name."""
    found = torch.autograd.grad((output * weights.to(output)).sum(), list(inputs.values()))
    return dict(zip(inputs, found, strict=True))


def vssm(arrays: dict[str, Tensor], scan) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """(output, scan arguments with gradients kept, input) of the paper's VSSM on a golden case, with `scan` inside."""
    parameters = {key[6:]: value for key, value in arrays.items() if key.startswith("param/")}
    expanded = F.linear(arrays["input"], parameters["in_proj.weight"])  # (B, H, W, 2E)
    x, z = expanded.chunk(2, dim=-1)
    x = F.conv2d(
        x.permute(0, 3, 1, 2), parameters["conv2d.weight"], parameters["conv2d.bias"], padding=1, groups=x.shape[-1]
    )
    y = scan(F.silu(x).permute(0, 2, 3, 1), *(parameters[name] for name in SS2D_INPUTS[1:]))
    y = F.layer_norm(y, y.shape[-1:], parameters["out_norm.weight"], parameters["out_norm.bias"])
    return F.linear(y * F.silu(z), parameters["out_proj.weight"])
