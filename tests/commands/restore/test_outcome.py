"""The last lines of a run: what was restored, how fast, and what failed."""

from pathlib import Path

import pytest

from mambair.commands.restore import outcome
from mambair.commands.restore.inputs import Failure, Job
from mambair.commands.restore.outcome import Outcome, Pace


def paced(monkeypatch: pytest.MonkeyPatch, first: float, counts: list[int], end: float) -> Pace:
    """The pace of so many images at a time, the first ones restored after `first` seconds, all written after `end`."""
    clock = iter([0.0, first, end])
    monkeypatch.setattr(outcome.time, "perf_counter", lambda: next(clock))
    pace = Pace(started=outcome.time.perf_counter())
    for images in counts:
        pace.count(images)
    pace.stop()
    return pace


@pytest.mark.parametrize(
    ("first", "counts", "end", "text"),
    [
        (3.1, [1, 1, 1], 3.9, "3.9 s (the first in 3.1 s, then 0.400 s an image)"),
        (3.0, [4, 2], 5.0, "5.0 s (the first 4 in 3.0 s, then 1.0 s an image)"),
        (3.1, [1], 3.2, "3.2 s"),
        (9.0, [4], 9.5, "9.5 s"),
    ],
)
def test_the_first_is_told_apart_from_the_others(monkeypatch: pytest.MonkeyPatch, first, counts, end, text) -> None:
    assert str(paced(monkeypatch, first, counts, end)) == text


def test_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Outcome(skipped=2, failures=[Failure("gone.png", "no such file or folder")])
    outcome.fail(Job(Path("a.png"), Path("out/a.png")), "a.png: damaged")
    assert next(outcome.summary(Path("out"))) == "restored 0, skipped 2 that existed, failed 2"
    outcome.restored, outcome.pace = 3, paced(monkeypatch, 2.0, [1, 2], 3.0)
    assert list(outcome.summary(Path("out"))) == [
        "restored 3, skipped 2 that existed, failed 2 in 3.0 s (the first in 2.0 s, then 0.500 s an image); "
        "results: out",
        "  failed: gone.png: no such file or folder",
        "  failed: a.png: damaged",
    ]
