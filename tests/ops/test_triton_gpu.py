"""The Triton kernels on a CUDA GPU: every type, odd sizes, poisoned memory, and what PyTorch builds on operators."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from mambair.ops import selective_scan, ss2d_scan
from mambair.ops.flops import ss2d_scan_flops
from tests.ops.cases import leaves, random_scan, random_ss2d

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

LIMITS = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 1e-2}
SIZES = [
    {"height": 13, "width": 37, "channels": 40, "states": 16, "rank": 3},
    {"height": 32, "width": 48, "channels": 72, "states": 10, "rank": 4, "batch": 1},
    {"height": 16, "width": 32, "channels": 360, "states": 16, "rank": 12, "batch": 1},
    {"height": 13, "width": 37, "channels": 40, "states": 16, "rank": 12},
    {"height": 37, "width": 40, "channels": 33, "states": 5, "rank": 9, "batch": 1},  # 23 chunks
    {"height": 40, "width": 16, "channels": 33, "states": 5, "rank": 2, "directions": 2},
    {"height": 7, "width": 50, "channels": 20, "states": 64, "rank": 2, "directions": 1},
    {"height": 1, "width": 1, "channels": 5, "states": 3, "rank": 1},
]


def norm_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    if not torch.isfinite(found).all():
        return float("inf")
    scale = expected.double().norm().item()
    return (found.double() - expected.double()).norm().item() / (scale if scale > 0 else 1.0)


def problem(seed: int = 0, **sizes: int) -> dict[str, torch.Tensor]:
    arguments = random_ss2d(torch.Generator().manual_seed(seed), **sizes)
    return {name: value.cuda() for name, value in arguments.items()}


def run(inputs: dict[str, torch.Tensor], backend: str) -> dict[str, torch.Tensor]:
    y = ss2d_scan(**inputs, directions=len(inputs["x_proj_weight"]), backend=backend)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    found = torch.autograd.grad((y * weights).sum(), list(inputs.values()))
    return {"y": y} | dict(zip(inputs, found, strict=True))


def with_type(arguments: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """x in `dtype`, the parameters in float32, as under autocast."""
    inputs = leaves(arguments, torch.float32)
    inputs["x"] = arguments["x"].to(dtype).requires_grad_()
    return inputs


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("bias", [0.0, 10.0])
@pytest.mark.parametrize("sizes", SIZES)
def test_ss2d_matches_float64(sizes: dict, bias: float, dtype: torch.dtype) -> None:
    arguments = problem(**sizes)
    arguments["dt_projs_bias"] += bias
    inputs = with_type(arguments, dtype)
    expected = run(leaves(arguments | {"x": inputs["x"]}, torch.float64), "reference")
    poison = torch.full((1 << 26,), torch.nan, device="cuda")
    del poison
    found = run(inputs, "triton")
    assert {name: e for name in found if not (e := norm_error(found[name], expected[name])) < LIMITS[dtype]} == {}


def test_results_repeat_bit_by_bit() -> None:
    inputs = with_type(problem(**SIZES[1]), torch.bfloat16)
    first, second = run(inputs, "triton"), run(inputs, "triton")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("length", [1, 37, 700])
def test_selective_scan_matches_float64(length: int, softplus: bool) -> None:
    arguments = random_scan(torch.Generator().manual_seed(0), channels=70, length=length, states=5, groups=2)
    arguments = {name: value.cuda() for name, value in arguments.items()}
    # Without softplus delta must be positive by itself: states would grow without bound.
    arguments["delta"] = arguments["delta"].abs() + 1.5
    arguments["delta_bias"].clamp_(min=-1.4)
    results = []
    for backend, dtype in (("reference", torch.float64), ("triton", torch.float32)):
        inputs = leaves(arguments, dtype)
        y, state = selective_scan(**inputs, delta_softplus=softplus, return_last_state=True, backend=backend)
        found = torch.autograd.grad(y.square().sum() + state.square().sum(), list(inputs.values()))
        results.append({"y": y, "state": state} | dict(zip(inputs, found, strict=True)))
    expected, found = results
    assert {name: e for name in found if not (e := norm_error(found[name], expected[name])) < 1e-5} == {}


def test_compiles_without_graph_breaks() -> None:
    inputs = with_type(problem(**SIZES[0]), torch.float32)
    compiled = torch.compile(lambda **tensors: ss2d_scan(**tensors, backend="triton").sin(), fullgraph=True)
    torch.testing.assert_close(compiled(**inputs), ss2d_scan(**inputs, backend="triton").sin())


def test_checkpointing_and_autocast_change_nothing() -> None:
    inputs = with_type(problem(**SIZES[0]), torch.bfloat16)
    plain = run(inputs, "triton")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        y = checkpoint(lambda: ss2d_scan(**inputs, backend="triton"), use_reentrant=False)
    assert torch.equal(y, plain["y"])


def test_replays_in_a_cuda_graph() -> None:
    inputs = problem(**SIZES[0])
    inputs = {name: value.float() for name, value in inputs.items()}
    with torch.no_grad():
        expected = ss2d_scan(**inputs, backend="triton")
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            ss2d_scan(**inputs, backend="triton")
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = ss2d_scan(**inputs, backend="triton")
        found.fill_(torch.nan)
        graph.replay()
    assert torch.equal(found, expected)


def test_operator_is_registered_as_pytorch_wants_it() -> None:
    inputs = with_type(problem(**SIZES[0]), torch.float32)
    torch.library.opcheck(torch.ops.mambair.ss2d_scan_triton.default, (*inputs.values(), 4, True))


def test_flops_are_counted() -> None:
    inputs = {name: value.float() for name, value in problem(**SIZES[0]).items()}
    with FlopCounterMode(display=False) as counter:
        ss2d_scan(**inputs, backend="triton")
    assert counter.get_total_flops() == ss2d_scan_flops(2, 13 * 37, 40, 16, 3, 4)
