"""The Triton kernels on Triton's interpreter, without a GPU: forward and every gradient against float64."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CASES = (
    "four directions",
    "two directions, gaps in memory",
    "two blocks of channels",
    "one pixel",
    "large delta",
    "full lines",
    "sequence",
    "sequence, plain delta",
)

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, float]]:
    """Case -> tensor -> relative error."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.ops.triton_interpreted"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_output_and_gradients_match_float64(errors: dict[str, dict[str, float]], case: str) -> None:
    assert {name: error for name, error in errors[case].items() if not error < 1e-5} == {}


def test_every_case_ran(errors: dict[str, dict[str, float]]) -> None:
    assert tuple(errors) == CASES
