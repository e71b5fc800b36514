"""What the end of a run suggests."""

import sys
from pathlib import Path
from typing import Any

import pytest

from mambair.engine.train.run_log import options_to_test
from tests.engine.tiny_run import train

OPTIONS = Path(__file__).resolve().parents[3] / "options"
WITHOUT = {"val": None, "datasets__val": None}


@pytest.mark.parametrize(
    ("trained", "tests"),
    [
        ("train/lightSR_x2.yml", "test/lightSR_x2.yml"),
        ("small/ColorDN_25.yml", "small/ColorDN_25_test.yml"),
        ("ablation/baseline.yml", None),
    ],
)
def test_the_option_file_that_fits_the_network_is_named(trained: str, tests: str | None) -> None:
    assert options_to_test(OPTIONS / trained) == (None if tests is None else OPTIONS / tests)


@pytest.mark.parametrize(
    ("started", "changes", "expected"),
    [
        ("bin/mambair", {}, "mambair test --run experiments/tiny"),
        ("mambair/train.py", {}, "python mambair/test.py --run experiments/tiny"),
        ("bin/mambair", WITHOUT, "mambair restore photo.jpg -o restored --weights experiments/tiny/models/net_g_2.pth"),
    ],
)
def test_the_last_line_is_a_command_that_works_next(
    started: str, changes: dict[str, Any], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    assert train(tmp_path, train__total_iter=2, **changes) == 0
    (log,) = (tmp_path / "experiments" / "tiny").glob("*.log")
    last = log.read_text(encoding="utf-8").splitlines()[-1].replace(f"{tmp_path}/", "")
    assert last.endswith(f"next: {expected}")
