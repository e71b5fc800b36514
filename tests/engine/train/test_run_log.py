"""What the end of a run suggests."""

from pathlib import Path

import pytest

from mambair.engine.train.run_log import options_to_test

OPTIONS = Path(__file__).resolve().parents[3] / "options"


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
