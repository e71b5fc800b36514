"""The Triton kernels on a CUDA GPU: every type, odd sizes, poisoned memory, and what PyTorch builds on operators."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from mambair.ops import depthwise_conv
from mambair.ops.backends import ENVIRONMENT_VARIABLE
from mambair.ops.flops import depthwise_conv_flops
from tests.ops.cases import leaves
from tests.ops.depthwise.cases import Arguments, as_slice, expected, found, random_convolution, spread

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

LIMITS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
SIZES = [
    {"height": 33, "width": 37, "channels": 72, "dilation": 1, "silu": True},
    {"height": 64, "width": 64, "channels": 360, "dilation": 1, "silu": True},
    {"height": 40, "width": 51, "channels": 60, "dilation": 2, "silu": False},
    {"height": 19, "width": 130, "channels": 30, "dilation": 1, "silu": False, "bias": False},
    {"height": 7, "width": 5, "channels": 33, "dilation": 3, "silu": True},
    {"height": 1, "width": 1, "channels": 1, "dilation": 1, "silu": True},
    {"height": 700, "width": 3, "channels": 16, "dilation": 2, "silu": True, "bias": False},
    {"height": 64, "width": 64, "channels": 24, "dilation": 1, "silu": False, "size": 5},
    {"height": 33, "width": 37, "channels": 348, "dilation": 1, "silu": True, "size": 5},
    {"height": 9, "width": 3, "channels": 5, "dilation": 2, "silu": False, "bias": False, "size": 7},
]


def problem(height: int, width: int, channels: int, bias: bool = True, size: int = 3, **_: int) -> Arguments:
    arguments = random_convolution(height=height, width=width, channels=channels, bias=bias, size=size)
    return {name: value.cuda() for name, value in arguments.items()}


def with_type(arguments: Arguments, dtype: torch.dtype) -> Arguments:
    """x and dy in `dtype`, the parameters in float32, as under autocast; x a slice of a wider tensor."""
    inputs = leaves(arguments, torch.float32)
    inputs["x"], inputs["dy"] = as_slice(arguments["x"].to(dtype)), arguments["dy"].to(dtype)
    return inputs


def norm_error(result: torch.Tensor, truth: torch.Tensor) -> float:
    if not torch.isfinite(result).all():
        return float("inf")
    return ((result.double() - truth).norm() / truth.norm()).item()


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("sizes", SIZES)
def test_matches_float64(sizes: dict, dtype: torch.dtype) -> None:
    inputs = with_type(problem(**sizes), dtype)
    truth = expected(inputs, sizes["dilation"], sizes["silu"])
    poison = torch.full((1 << 26,), torch.nan, device="cuda")
    del poison
    results = found(inputs, sizes["dilation"], sizes["silu"])
    assert {name: e for name in truth if not (e := norm_error(results[name], truth[name])) < LIMITS[dtype]} == {}
    assert results["y"].is_contiguous()
    assert results["y"].dtype == dtype


def test_gaps_between_channels() -> None:
    arguments = problem(**SIZES[0])
    inputs = leaves(arguments, torch.float32)
    inputs["x"] = spread(inputs["x"])
    truth, results = expected(arguments, 1, True), found(inputs, 1, True)
    assert {name: e for name in truth if not (e := norm_error(results[name], truth[name])) < 1e-5} == {}


def test_unaligned_memory() -> None:
    # The second half of a tensor whose halves have an odd number of channels, or begin in the middle of a vector.
    wide = torch.randn(1, 9, 20, 90, device="cuda")
    parameters = leaves(problem(9, 20, 36), torch.float32)
    for begin in (1, 2, 46):
        x = wide[..., begin : begin + 36]
        inputs = parameters | {"x": x.detach().requires_grad_(), "dy": torch.randn(1, 9, 20, 36, device="cuda")}
        truth, results = expected(inputs, 1, True), found(inputs, 1, True)
        assert {name: e for name in truth if not (e := norm_error(results[name], truth[name])) < 1e-5} == {}


def test_results_repeat_bit_by_bit() -> None:
    inputs = with_type(problem(**SIZES[1]), torch.bfloat16)
    first, second = found(inputs, 1, True), found(inputs, 1, True)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_reference_backend_is_pytorchs_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = with_type(problem(**SIZES[2]), torch.float32)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "reference")
    with FlopCounterMode(display=False) as counter:
        found(inputs, 2, False)
    assert {operator.__name__ for operator in counter.get_flop_counts()["Global"]} == {
        "convolution",
        "convolution_backward",
    }


def test_compiles_without_graph_breaks() -> None:
    inputs = with_type(problem(**SIZES[0]), torch.float32)
    arguments = (inputs["x"], inputs["weight"], inputs["bias"])
    compiled = torch.compile(lambda *tensors: depthwise_conv(*tensors, silu=True).sin(), fullgraph=True)
    torch.testing.assert_close(compiled(*arguments), depthwise_conv(*arguments, silu=True).sin())


def test_checkpointing_and_autocast_change_nothing() -> None:
    inputs = with_type(problem(**SIZES[0]), torch.bfloat16)
    plain = found(inputs, 1, True)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        again = checkpoint(
            lambda: depthwise_conv(inputs["x"].float(), inputs["weight"], inputs["bias"], silu=True),
            use_reentrant=False,
        )
    assert torch.equal(again, plain["y"])
    again.backward(inputs["dy"])
    assert torch.equal(inputs["weight"].grad, plain["weight"])
    assert torch.equal(inputs["x"].grad, plain["x"])


def test_forward_and_backward_replay_in_a_cuda_graph() -> None:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # autograd waits for the stream that the leaves were made on
        inputs = with_type(problem(**SIZES[0]), torch.bfloat16)
        plain = found(inputs, 1, True)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        replayed = found(inputs, 1, True)
    with torch.no_grad():
        for tensor in replayed.values():
            tensor.fill_(torch.nan)
    graph.replay()
    assert all(torch.equal(replayed[name], plain[name]) for name in plain)


@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[3]])
def test_operator_is_registered_as_pytorch_wants_it(sizes: dict) -> None:
    inputs = with_type(problem(**sizes), torch.float32)
    depthwise_conv(inputs["x"], inputs["weight"], inputs.get("bias"))  # registers the operator
    arguments = (inputs["x"], inputs["weight"], inputs.get("bias"), sizes["dilation"], sizes["silu"])
    torch.library.opcheck(torch.ops.mambair.depthwise_conv_triton.default, arguments)


def test_flops_are_counted() -> None:
    inputs = with_type(problem(**SIZES[0]), torch.float32)
    with FlopCounterMode(display=False) as counter:
        found(inputs, 1, True)
    assert counter.get_total_flops() == 3 * depthwise_conv_flops(2, 33 * 37, 72)
