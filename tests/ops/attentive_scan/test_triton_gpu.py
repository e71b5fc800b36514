"""The Triton kernels on a CUDA GPU: every type, odd sizes, poisoned memory, tracing, repeatability."""

import pytest
import torch

from mambair.ops import attentive_scan
from tests.ops.attentive_scan.cases import random_problem
from tests.ops.cases import gradients, leaves

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

LIMITS = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}
SIZES = [
    {"length": 4096, "channels": 48, "states": 8, "rank": 3, "count": 64},
    {"length": 1024, "channels": 348, "states": 16, "rank": 22, "count": 128},
    {"batch": 3, "length": 777, "channels": 37, "states": 5, "rank": 3, "count": 9},
    {"batch": 1, "length": 1, "channels": 1, "states": 1, "rank": 1, "count": 2},
]


def norm_error(result: torch.Tensor, truth: torch.Tensor) -> float:
    if not torch.isfinite(result).all():
        return float("inf")
    return ((result.double() - truth).norm() / truth.norm().clamp(min=1e-30)).item()


def problem(sizes: dict, dtype: torch.dtype) -> tuple[dict, torch.Tensor, torch.Tensor]:
    """(arguments, tokens, gradient that arrives), on the GPU; x of `dtype`, parameters in float32."""
    generator = torch.Generator().manual_seed(0)
    arguments, tokens = random_problem(generator, **sizes)
    dy = torch.randn(arguments["x"].shape, generator=generator).cuda()
    arguments = {name: value.float().cuda() for name, value in arguments.items()}
    arguments["x"] = arguments["x"].to(dtype)
    return arguments, tokens.cuda(), dy.to(dtype)


def run(arguments: dict, tokens: torch.Tensor, dy: torch.Tensor, backend: str) -> dict[str, torch.Tensor]:
    y = attentive_scan(tokens=tokens, **arguments, backend=backend)
    return {"y": y} | gradients(y, dy, arguments)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_matches_float64(sizes: dict, dtype: torch.dtype) -> None:
    arguments, tokens, dy = problem(sizes, dtype)
    truth = run(leaves(arguments, torch.float64), tokens, dy, "portable")
    poison = torch.full((1 << 26,), torch.nan, device="cuda")
    del poison
    inputs = {name: value.detach().clone().requires_grad_() for name, value in arguments.items()}
    results = run(inputs, tokens, dy, "triton")
    assert {name: e for name in truth if not (e := norm_error(results[name], truth[name])) < LIMITS[dtype]} == {}
    assert results["y"].dtype == dtype


def test_repeats_bit_for_bit_and_as_it_is_traced() -> None:
    arguments, tokens, dy = problem(SIZES[0], torch.bfloat16)
    inputs = {name: value.detach().clone().requires_grad_() for name, value in arguments.items()}
    first, second = (run(inputs, tokens, dy, "triton") for _ in range(2))
    traced = torch.compile(attentive_scan, fullgraph=True, backend="aot_eager")
    y = traced(tokens=tokens, **inputs, backend="triton")
    third = {"y": y} | gradients(y, dy, inputs)
    for name, value in first.items():
        assert torch.equal(value, second[name]) and torch.equal(value, third[name]), name
