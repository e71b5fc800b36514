"""Run by test_triton_interpreter.py in a process of its own, since Triton reads TRITON_INTERPRET when it is imported.

Prints one JSON object: case -> output or input name -> relative error against float64.
"""

import json
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair.ops import layer_norm
from tests.ops.cases import relative_error

EPS = 1e-5


def case(shape: tuple[int, ...], *, half: bool = False, for_products: bool = True) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, dtype=torch.float64)

    *_, channels = shape
    inputs = {"x": normal(*shape) + 0.3, "weight": 1 + 0.3 * normal(channels), "bias": 0.3 * normal(channels)}
    weights = normal(*shape)
    exact = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    y = F.layer_norm(exact["x"], (channels,), exact["weight"], exact["bias"], EPS)
    expected = {"y": y} | dict(zip(inputs, torch.autograd.grad((y * weights).sum(), list(exact.values())), strict=True))
    single = {name: value.float().requires_grad_() for name, value in inputs.items()}
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        y = layer_norm(single["x"], single["weight"], single["bias"], EPS, for_products)
    assert y.dtype == (torch.bfloat16 if half and for_products else torch.float32)
    assert "LayerNormFunction" in type(y.grad_fn).__name__, "PyTorch's LayerNorm ran"
    gradients = torch.autograd.grad((y * weights.to(y)).sum(), list(single.values()))
    found = {"y": y} | dict(zip(inputs, gradients, strict=True))
    return {name: relative_error(found[name], expected[name]) for name in expected}


def all_cases() -> Iterator[tuple[str, dict[str, float]]]:
    yield "image", case((2, 3, 5, 12))
    yield "one row", case((1, 7))
    yield "many rows", case((1100, 33))
    yield "in front of products, half precision", case((2, 5, 6), half=True)
    yield "half precision", case((2, 5, 6), half=True, for_products=False)


print(json.dumps(dict(all_cases())))
