"""docs/reliability.md: every promise names a test, and the test exists."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


def test_every_promise_names_a_test() -> None:
    promises = re.findall(r"^\| .* \|$", PAGE.partition("## Exact resume")[2], re.MULTILINE)
    promises = [line for line in promises if line != "| promise | shown by |"]
    assert len(promises) == len(NAMED) > 40


@pytest.mark.parametrize(("file", "test"), NAMED, ids=lambda value: Path(value).stem)
def test_the_test_exists(file: str, test: str) -> None:
    assert f"\ndef {test}(" in (PROJECT / file).read_text(encoding="utf-8")
