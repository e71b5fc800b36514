"""The Triton kernels on Triton's interpreter, without a GPU: forward and every gradient against float64."""

import importlib.util

import pytest

from mambair.ops.backends import ENVIRONMENT_VARIABLE
from tests.ops.interpreting import run_interpreted

LIMITS = {
    "silu, slice of a wider tensor": 1e-5,
    "two strips, two blocks of columns": 1e-5,
    "two blocks of channels, no bias": 1e-5,
    "dilation, three strips": 1e-5,
    "dilation, a strip without rows": 1e-5,
    "dilation, a column without its pair": 1e-5,
    "dilation with silu, gaps between channels": 1e-5,
    "dilation beyond the image": 1e-5,
    "one pixel": 1e-5,
    "one channel": 1e-5,
    "more parts than are summed at a time": 1e-5,
    "few parts": 1e-5,
    "5x5, slice of a wider tensor": 1e-5,
    "5x5, shares of tiles, no bias": 1e-5,
    "7x7 with dilation and silu": 1e-5,
    "5x5 as it is traced": 1e-5,
    "half precision": 2e-3,
}

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, float]]:
    """Case -> tensor -> relative error."""
    return run_interpreted("tests.ops.depthwise.triton_interpreted", **{ENVIRONMENT_VARIABLE: "triton"})


@pytest.mark.parametrize("case", LIMITS)
def test_output_and_gradients_match_float64(errors: dict[str, dict[str, float]], case: str) -> None:
    assert {name: error for name, error in errors[case].items() if not error < LIMITS[case]} == {}


def test_every_case_ran(errors: dict[str, dict[str, float]]) -> None:
    assert tuple(errors) == tuple(LIMITS)
