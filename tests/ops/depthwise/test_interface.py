"""The operator on the CPU, which is PyTorch's convolution, and the arguments it refuses."""

from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mambair.errors import UserError
from mambair.ops import depthwise_conv
from mambair.ops.backends import ENVIRONMENT_VARIABLE
from mambair.ops.flops import depthwise_conv_flops
from tests.ops.cases import leaves, relative_error
from tests.ops.depthwise.cases import as_slice, expected, found, random_convolution, spread


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [lambda x: x, as_slice, spread])
@pytest.mark.parametrize(
    ("sizes", "dilation", "silu"),
    [
        ({}, 1, True),
        ({"height": 6, "width": 3, "bias": False}, 2, False),
        ({"height": 1, "width": 1, "channels": 1}, 1, True),
        ({"height": 2, "width": 9, "bias": False}, 3, True),
        ({"size": 5}, 1, False),
        ({"size": 7, "bias": False}, 2, True),
        ({"size": 5, "height": 11, "width": 13, "channels": 21}, 1, False),
        ({"size": 7, "width": 17, "channels": 16, "bias": False}, 2, True),
    ],
)
def test_matches_float64(sizes: dict, dilation: int, silu: bool, layout: Callable, dtype: torch.dtype) -> None:
    arguments = random_convolution(**sizes)
    inputs = leaves(arguments, dtype)
    inputs["x"] = layout(inputs["x"])
    truth, results = expected(arguments, dilation, silu), found(inputs, dilation, silu)
    limit = 1e-5 if dtype == torch.float32 else 1e-12
    assert {name: e for name in truth if not (e := relative_error(results[name], truth[name])) < limit} == {}
    assert results["y"].is_contiguous()
    assert results["y"].dtype == dtype


def test_wide_weights_train_on_the_compiled_kernels() -> None:
    inputs = leaves(random_convolution(size=5, channels=16), torch.float32)
    y = depthwise_conv(inputs["x"], inputs["weight"], inputs["bias"])
    assert y.grad_fn is not None
    assert y.grad_fn.name() == "_ConvolutionBackward"


def test_computes_in_the_type_of_autocast() -> None:
    arguments = random_convolution()
    inputs = leaves(arguments, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = found(inputs, 1, True)
    assert results["y"].dtype == torch.bfloat16
    assert all(results[name].dtype == torch.float32 for name in ("x", "weight", "bias"))
    truth = expected(arguments, 1, True)
    assert {name: e for name in truth if not (e := relative_error(results[name], truth[name])) < 2e-2} == {}


def test_narrow_x_and_wide_weights_yield_the_type_of_x() -> None:
    arguments = leaves(random_convolution(), torch.float32)
    y = depthwise_conv(arguments["x"].bfloat16(), arguments["weight"], arguments["bias"])
    assert y.dtype == torch.bfloat16


@pytest.mark.parametrize("autocast", [False, True])
def test_compiles_without_graph_breaks(autocast: bool) -> None:
    inputs = leaves(random_convolution(), torch.float32)

    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            return depthwise_conv(x, inputs["weight"], inputs["bias"], silu=True).sin()

    torch.testing.assert_close(torch.compile(run, fullgraph=True, backend="aot_eager")(inputs["x"]), run(inputs["x"]))


def test_flops_are_counted() -> None:
    inputs = leaves(random_convolution(), torch.float32)
    # Forward only: PyTorch's rule for the gradient of a convolution's weight leaves the groups out.
    with FlopCounterMode(display=False) as counter:
        depthwise_conv(inputs["x"], inputs["weight"], inputs["bias"])
    assert counter.get_total_flops() == depthwise_conv_flops(batch=2, pixels=35, channels=6) == 2 * 9 * 2 * 35 * 6


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("x", lambda x: x[0], "x must be"),
        ("x", lambda x: x[:, :0], "not empty"),
        ("x", lambda x: x.int(), "x must be real floating"),
        ("weight", lambda weight: weight[:-1], "weight must be"),
        ("weight", lambda weight: weight.flatten(1), "weight must be"),
        ("weight", lambda weight: weight[..., :2, :2], "an odd k"),
        ("bias", lambda bias: bias[:1], "bias must be"),
        ("bias", lambda bias: bias.to("meta"), "bias is on meta"),
        ("dilation", lambda _: 0, "dilation must be"),
    ],
)
def test_names_the_wrong_argument(name: str, change: Callable, message: str) -> None:
    arguments: dict = random_convolution() | {"dilation": 1}
    del arguments["dy"]
    arguments[name] = change(arguments[name])
    with pytest.raises(UserError, match=message):
        depthwise_conv(**arguments)


def test_a_backend_that_cannot_run_is_an_error_as_it_is_for_the_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = leaves(random_convolution(), torch.float32)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "triton")
    with pytest.raises(UserError, match="triton"):
        found(arguments, 1, False)
