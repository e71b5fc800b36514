"""Processes that are asked to stop, fail or hang: in real ones, with real signals."""

from pathlib import Path

import pytest
import torch

from tests.engine.tiny_run import HARD, train_options, write_options
from tests.faults.processes import Trainers, one_line, torchrun
from tests.faults.runs import assert_same_end, read_state

TWO = {"num_gpu": "auto", "dist_params": {"timeout": 60}}

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="num_gpu: auto takes the CPU only without CUDA")


@pytest.fixture(scope="module")
def reference(trainers: Trainers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reference")
    assert trainers.train(write_options(root, train_options(root, **HARD))).statuses == [0]
    return root


@pytest.mark.parametrize(
    ("what", "status", "message", "saved"),
    [
        ("terminate", 143, "stopped by SIGTERM after iteration 5 of 6; the last good checkpoint is", 5),
        ("interrupt", 130, "stopped by SIGINT after iteration 5 of 6; the last good checkpoint is", 5),
        ("interrupt twice", -2, "press Ctrl-C again to end at once without one", 2),
        ("kill", -9, "iter 2/6", 2),
        ("fail", 2, "error: the disk of this machine is gone", 2),
    ],
)
def test_one_process(
    trainers: Trainers, reference: Path, tmp_path: Path, what: str, status: int, message: str, saved: int
) -> None:
    options = write_options(tmp_path, train_options(tmp_path, **HARD))
    ended = trainers.train(options, fault={"rank": 0, "step": 3, "what": what})
    assert ended.statuses == [status], ended.output
    assert message in ended.output
    assert "Traceback" not in ended.output
    states = {int(path.stem) for path in (tmp_path / "experiments/tiny/training_states").glob("*.state")}
    assert max(states) == saved
    assert trainers.train(options, "--auto_resume").statuses == [0]
    assert_same_end(reference, tmp_path, 6)


@pytest.mark.parametrize(
    ("what", "timeout", "statuses", "cause"),
    [
        ("fail", 60, [2, 2], "rank 1 failed: the disk of this machine is gone"),
        ("hang", 2, [1, 1], "another process does not answer: it was killed (out of memory, perhaps) or hangs"),
        ("kill", 60, [1, -9], "another process does not answer: it was killed (out of memory, perhaps) or hangs"),
        ("terminate", 60, [143, 143], "stopped by SIGTERM after iteration 5 of 6; the last good checkpoint is"),
    ],
)
def test_one_of_two_processes(
    trainers: Trainers, tmp_path: Path, what: str, timeout: int, statuses: list[int], cause: str
) -> None:
    """Both end, at once or within the timeout, and the terminal has the first cause and no traceback."""
    changes = {**TWO, "dist_params": {"timeout": timeout}}
    options = write_options(tmp_path, train_options(tmp_path, **changes))
    ended = trainers.train(options, processes=2, fault={"rank": 1, "step": 3, "what": what})
    assert ended.statuses == statuses, ended.output
    assert cause in ended.output
    assert "Traceback" not in ended.output
    assert read_state(tmp_path, 2)["iter"] == 2


def test_all_save_when_torchrun_is_asked_to_stop(tmp_path: Path) -> None:
    changes = {"train__total_iter": 100_000, "val": None, "logger__save_checkpoint_freq": 100_000}
    options = write_options(tmp_path, train_options(tmp_path, **TWO, **changes))
    ended = torchrun(options, {"rank": 1, "step": 9, "what": "terminate the launcher"})
    assert ended.returncode != 0
    assert "stopped by SIGTERM after iteration" in one_line(ended.stdout), ended.stdout
    (state,) = (tmp_path / "experiments/tiny/training_states").glob("*.state")
    assert read_state(tmp_path, int(state.stem))["iter"] >= 9
