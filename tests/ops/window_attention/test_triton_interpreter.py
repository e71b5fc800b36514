"""The Triton kernels on Triton's interpreter, without a GPU: forward and every gradient against float64."""

import importlib.util

import pytest

from tests.ops.interpreting import run_interpreted

CASES = (
    "windows in place",
    "shifted windows",
    "blocks of pixels",
    "smaller blocks",
    "odd windows, as traced",
    "watched calls",
)

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, float]]:
    """Case -> tensor -> relative error."""
    return run_interpreted("tests.ops.window_attention.triton_interpreted")


@pytest.mark.parametrize("case", CASES)
def test_output_and_gradients_match_float64(errors: dict[str, dict[str, float]], case: str) -> None:
    assert {name: error for name, error in errors[case].items() if not error < 1e-5} == {}


def test_every_case_ran(errors: dict[str, dict[str, float]]) -> None:
    assert tuple(errors) == CASES
