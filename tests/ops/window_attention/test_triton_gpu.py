"""The Triton kernels on a CUDA GPU: every type, shifted or not, odd sizes, poisoned memory, tracing, repeatability."""

import pytest
import torch

from mambair.ops import window_attention
from mambair.ops.window_attention.reference import window_attention_reference
from tests.ops.cases import gradients, leaves
from tests.ops.window_attention.cases import random_attention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

LIMITS = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}
SIZES = [
    {"batch": 2, "height": 64, "width": 64, "window": 16, "heads": 4, "channels": 12},
    {"height": 32, "width": 48, "window": 16, "heads": 6, "channels": 29},
    {"height": 16, "width": 16, "window": 16, "heads": 4, "channels": 33},
    {"batch": 3, "height": 10, "width": 15, "window": 5, "heads": 1, "channels": 7},
    {"height": 18, "width": 9, "window": 9, "heads": 3, "channels": 16},
    {"height": 11, "width": 22, "window": 11, "heads": 2, "channels": 12},
    {"height": 8, "width": 24, "window": 8, "heads": 2, "channels": 12},
    {"height": 15, "width": 15, "window": 15, "heads": 2, "channels": 29},
]


def norm_error(result: torch.Tensor, truth: torch.Tensor) -> float:
    if not torch.isfinite(result).all():
        return float("inf")
    return ((result.double() - truth).norm() / truth.norm().clamp(min=1e-30)).item()


def run(function, inputs: dict, dy: torch.Tensor, window: int, shift: int) -> dict[str, torch.Tensor]:
    y = function(**inputs, window_size=window, shift=shift)
    return {"y": y} | gradients(y, dy, inputs)


def problem(sizes: dict, dtype: torch.dtype) -> tuple[dict, torch.Tensor]:
    """(arguments, gradient that arrives), on the GPU; qkv of `dtype`, the table in float32."""
    generator = torch.Generator().manual_seed(0)
    arguments = {name: value.float().cuda() for name, value in random_attention(generator, **sizes).items()}
    arguments["qkv"] = arguments["qkv"].to(dtype)
    shape = (*arguments["qkv"].shape[:3], arguments["qkv"].shape[3] // 3)
    return arguments, torch.randn(shape, generator=generator).to("cuda", dtype)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_matches_float64(sizes: dict, shifted: bool, dtype: torch.dtype) -> None:
    arguments, dy = problem(sizes, dtype)
    shift = sizes["window"] // 2 if shifted else 0
    truth = run(window_attention_reference, leaves(arguments, torch.float64), dy, sizes["window"], shift)
    poison = torch.full((1 << 26,), torch.nan, device="cuda")
    del poison
    inputs = {name: value.detach().clone().requires_grad_() for name, value in arguments.items()}
    results = run(window_attention, inputs, dy, sizes["window"], shift)
    assert {name: e for name in truth if not (e := norm_error(results[name], truth[name])) < LIMITS[dtype]} == {}
    assert results["y"].dtype == dtype and results["y"].is_contiguous()


@pytest.mark.parametrize("channels", [12, 29])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_take_the_published_windows(dtype: torch.dtype, channels: int) -> None:
    from mambair.ops.window_attention.triton_tiles import MIN_CAPABILITY, tiles_for

    if torch.cuda.get_device_capability() < MIN_CAPABILITY:
        pytest.skip("PyTorch's attention is taken here")
    assert tiles_for(16, channels, dtype, torch.device("cuda", torch.cuda.current_device())) is not None


def test_repeats_bit_for_bit_and_as_it_is_traced() -> None:
    arguments, dy = problem(SIZES[0], torch.bfloat16)
    inputs = {name: value.detach().clone().requires_grad_() for name, value in arguments.items()}
    traced = torch.compile(window_attention, fullgraph=True, backend="aot_eager")
    first, *others = (run(function, inputs, dy, 16, 8) for function in (window_attention, window_attention, traced))
    for name, value in first.items():
        assert all(torch.equal(value, other[name]) for other in others), name
