"""Runs killed with SIGKILL at random points end, once resumed, as if nothing had happened: to the last bit."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.tiny_run import HARD, train_options, write_options
from tests.faults.processes import Ended, Trainers, one_line, random_points, torchrun
from tests.faults.runs import assert_same_end

LAST = 6
TWO = {"num_gpu": "auto", "dist_params": {"timeout": 20}}
"""Options of runs of two processes; going on with one, they accumulate."""

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="bit-identical on the CPU; num_gpu: auto takes GPUs")


def make_options(root: Path, **changes: Any) -> Path:
    return write_options(root, train_options(root, **{**HARD, **changes}))


@pytest.fixture(scope="module")
def alone(trainers: Trainers, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A run of one process that nothing happened to."""
    root = tmp_path_factory.mktemp("alone")
    ended = trainers.train(make_options(root))
    assert ended.statuses == [0], ended.output
    return root, ended


@pytest.fixture(scope="module")
def together(trainers: Trainers, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A run of two processes that nothing happened to."""
    root = tmp_path_factory.mktemp("together")
    ended = trainers.train(make_options(root, **TWO), processes=2)
    assert ended.statuses == [0, 0], ended.output
    return root, ended


def kill_until_it_ends(
    trainers: Trainers, options: Path, points: random.Random, counts: dict, where: str, kills: int, processes: int = 1
) -> None:
    """Start a run, kill it at a random point, go on with it, kill it again ...; the last time it is left alone."""
    for _ in range(kills):
        kill = {"rank": points.randrange(processes), "where": where, "at": points.randint(1, counts[where])}
        ended = trainers.train(options, "--auto_resume", processes=processes, kill=kill)
        print(kill, ended.statuses)
        # What is left to do has fewer calls than the whole: the point may not be reached.
        assert -9 in ended.statuses or set(ended.statuses) == {0}, ended.output
        assert "Traceback" not in ended.output
    ended = trainers.train(options, "--auto_resume", processes=processes)
    assert set(ended.statuses) == {0}, ended.output


@pytest.mark.parametrize("where", ["anywhere", "anywhere again", "saving", "saving again", "steps"])
def test_killed_at_random_points(trainers: Trainers, alone: tuple[Path, Ended], tmp_path: Path, where: str) -> None:
    where = where.removesuffix(" again")
    reference, ended = alone
    kill_until_it_ends(trainers, make_options(tmp_path), random_points(), ended.counts, where, kills=2)
    assert_same_end(reference, tmp_path, LAST)
    assert not list(tmp_path.rglob(".tmp-*"))


@pytest.mark.parametrize("where", ["anywhere", "saving"])
def test_two_processes_killed_at_random_points(
    trainers: Trainers, together: tuple[Path, Ended], tmp_path: Path, where: str
) -> None:
    reference, ended = together
    options = make_options(tmp_path, **TWO)
    kill_until_it_ends(trainers, options, random_points(), ended.counts, where, kills=1, processes=2)
    assert_same_end(reference, tmp_path, LAST)


def test_torchrun_restarts_a_killed_process(together: tuple[Path, Ended], tmp_path: Path) -> None:
    points = random_points()
    fault = {"rank": points.randrange(2), "step": points.randint(1, 5), "what": "kill"}
    print(fault)
    ended = torchrun(make_options(tmp_path, **TWO), fault, "--auto_resume", restarts=1)
    assert ended.returncode == 0, ended.stdout
    assert "another process does not answer: it was killed" in one_line(ended.stdout)
    assert "exitcode: -9" in ended.stdout
    assert_same_end(together[0], tmp_path, LAST)


def test_killed_while_accumulating(trainers: Trainers, together: tuple[Path, Ended], tmp_path: Path) -> None:
    """Two processes begin and are killed; one goes on in twice as many micro-batches, with and without being killed."""
    points = random_points()
    roots = [tmp_path / "left_alone", tmp_path / "killed"]
    for root in roots:
        options = make_options(root, **TWO)
        ended = trainers.train(options, "--auto_resume", processes=2, kill={"rank": 1, "where": "steps", "at": 4})
        assert ended.statuses[1] == -9, ended.output
        if root.name == "killed":
            at = points.randint(1, together[1].counts["anywhere"] // 2)
            killed = trainers.train(options, "--auto_resume", kill={"rank": 0, "where": "anywhere", "at": at})
            print(at, killed.statuses)
        ended = trainers.train(options, "--auto_resume")
        assert ended.statuses == [0]
        assert "total batch 4 = 1 process x 2 x 2 accumulation steps" in ended.output
    assert_same_end(*roots, LAST)
