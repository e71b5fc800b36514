"""The parts of an attentive layer on Triton's interpreter, without a GPU, against float64."""

import importlib.util

import pytest

from mambair.ops.backends import ENVIRONMENT_VARIABLE
from tests.ops.interpreting import run_interpreted

EXACT, HALF = 1e-5, 3e-2
LIMITS = {
    "light mix": EXACT,
    "light mix, half precision": HALF,
    "mix": EXACT,
    "mix, half precision": HALF,
    "mix, step by step": EXACT,
    "light layer, bytes kept": EXACT,
    "base layer, bytes kept": EXACT,
    "attention": EXACT,
    "attention, no bias": EXACT,
    "attention, half precision": HALF,
    "scan": EXACT,
    "scan, step by step": EXACT,
    "scan, drawn tokens": EXACT,
    "scan, half precision": HALF,
}

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, float]]:
    """Case -> tensor -> relative error."""
    return run_interpreted("tests.ops.attentive_layer.triton_interpreted", **{ENVIRONMENT_VARIABLE: "triton"})


@pytest.mark.parametrize("case", LIMITS)
def test_output_and_gradients_match_float64(errors: dict[str, dict[str, float]], case: str) -> None:
    assert {name: error for name, error in errors[case].items() if not error < LIMITS[case]} == {}


def test_every_case_ran(errors: dict[str, dict[str, float]]) -> None:
    assert tuple(errors) == tuple(LIMITS)
