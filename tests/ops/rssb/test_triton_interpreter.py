"""The operators of a block's halves on Triton's interpreter, without a GPU, against float64."""

import importlib.util

import pytest

from mambair.ops.backends import ENVIRONMENT_VARIABLE
from tests.ops.interpreting import run_interpreted
from tests.ops.rssb.sum_cases import ATTENTIONS, SUMS

LIMITS = {
    "scan": 1e-5,
    "scan, one direction": 1e-5,
    "scan, half precision": 3e-2,
    "light": 1e-5,
    "light, eights": 1e-5,
    "light, half precision": 3e-2,
    "classic": 1e-5,
    "classic, half precision": 3e-2,
    "classic, own gradients of weights": 3e-2,
    "weights": 1e-5,
    "weights, five taps in places for eight": 1e-5,
    "weights, three taps in places for four": 1e-5,
    "weights, one row": 1e-5,
    "weights, one column": 1e-5,
    "weights, sums of many parts": 1e-5,
    **{f"sums {sizes}": 1e-5 for sizes in SUMS},
    **{f"attention {sizes}": 1e-5 for sizes in ATTENTIONS},
}

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, float]]:
    """Case -> tensor -> relative error."""
    return run_interpreted("tests.ops.rssb.triton_interpreted", **{ENVIRONMENT_VARIABLE: "triton"})


@pytest.mark.parametrize("case", LIMITS)
def test_output_and_gradients_match_float64(errors: dict[str, dict[str, float]], case: str) -> None:
    assert {name: error for name, error in errors[case].items() if not error < LIMITS[case]} == {}


def test_every_case_ran(errors: dict[str, dict[str, float]]) -> None:
    assert tuple(errors) == tuple(LIMITS)
