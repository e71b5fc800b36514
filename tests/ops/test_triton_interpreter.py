"""The Triton kernels on Triton's interpreter, without a GPU: forward and every gradient against float64."""

import importlib.util

import pytest

from tests.ops.interpreting import run_interpreted

LIMITS = {
    "four directions": 1e-5,
    "two directions, gaps in memory": 1e-5,
    "two blocks of channels": 1e-5,
    "one pixel": 1e-5,
    "large delta": 1e-5,
    "full lines": 1e-5,
    "more chunks than are passed at once": 1e-5,
    "sequence": 1e-5,
    "sequence, plain delta": 1e-5,
    "one run of chunks": 1e-6,
    "runs of chunks, backward": 1e-6,
    "runs of chunks, some empty": 1e-6,
    "delta as a product": 5e-4,  # rounded to fp16
}

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, float]]:
    """Case -> tensor -> relative error."""
    return run_interpreted("tests.ops.triton_interpreted")


@pytest.mark.parametrize("case", LIMITS)
def test_output_and_gradients_match_float64(errors: dict[str, dict[str, float]], case: str) -> None:
    assert {name: error for name, error in errors[case].items() if not error < LIMITS[case]} == {}


def test_every_case_ran(errors: dict[str, dict[str, float]]) -> None:
    assert tuple(errors) == tuple(LIMITS)
