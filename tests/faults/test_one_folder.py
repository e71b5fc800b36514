"""Two processes that want one folder: the second one is refused, and goes on once the first is gone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from mambair.commands import test as test_command
from mambair.commands.data import main as data_main
from mambair.runtime.run_folders import claimed_results
from tests.engine.tiny_run import HARD, test_options, train_options, write_options, write_pairs
from tests.faults.processes import PROJECT, Trainers
from tests.faults.runs import assert_same_end

HANGING = """
import sys
from mambair.commands.train import main
from mambair.engine.train.step import Stepper
from tests.faults.happenings import let_happen

def tell(self, loaded, stop, original=Stepper.step):
    print("step", loaded.iteration, flush=True)
    return original(self, loaded, stop)

let_happen({"rank": 0, "step": 4, "what": "hang"}, 0)
hang = Stepper.step
Stepper.step = lambda self, loaded, stop: tell(self, loaded, stop, hang)
main(sys.argv[1:])
"""

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="written for the CPU")


@contextmanager
def hanging_run(options: Path) -> Iterator[subprocess.Popen]:
    """A run that stands at iteration 4."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", HANGING, "-opt", str(options)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout:
                if line == "step 4\n":
                    break
            assert process.poll() is None
            yield process
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")}


@pytest.mark.parametrize("flags", [(), ("--auto_resume",)])
def test_a_second_training_is_refused_and_may_succeed_a_dead_one(tmp_path: Path, trainers: Trainers, flags) -> None:
    reference = tmp_path / "reference"
    assert trainers.train(write_options(reference, train_options(reference, **HARD))).statuses == [0]
    options = write_options(tmp_path, train_options(tmp_path, **HARD))
    with hanging_run(options) as process:
        before = contents(tmp_path / "experiments")
        second = trainers.train(options, *flags)
        assert second.statuses == [2]
        assert f"experiments/tiny: is in use by -c, process {process.pid} on " in second.output
        assert "wait for its end, stop it, or change 'name'" in second.output
        assert contents(tmp_path / "experiments") == before
    assert trainers.train(options, "--auto_resume").statuses == [0]
    assert_same_end(reference, tmp_path, 6)
    assert not list((tmp_path / "experiments").glob(".*"))


def test_a_second_test_of_a_name_is_refused(tmp_path: Path, trainers: Trainers, capsys) -> None:
    run = tmp_path / "run"
    assert trainers.train(write_options(run, train_options(run, train__total_iter=1))).statuses == [0]
    weights = run / "experiments" / "tiny" / "models" / "net_g_latest.pth"
    options = write_options(tmp_path, test_options(tmp_path, weights))
    with claimed_results(tmp_path, "tiny_test"):
        assert test_command.main(["-opt", str(options)]) == 2
    assert "results/tiny_test: is in use by" in capsys.readouterr().err
    assert not list((tmp_path / "results").glob("tiny_test*"))
    assert test_command.main(["-opt", str(options)]) == 0


def test_a_second_process_that_prepares_data_is_refused(tmp_path: Path, capsys) -> None:
    from mambair.commands.data.jobs import claimed_folder
    from mambair.runtime.claims import claimed, lock_beside

    write_pairs(tmp_path / "set", ("astronaut",), 48)
    hr = str(tmp_path / "set" / "HR")
    with claimed_folder(tmp_path / "lr" / "X2", "lr", {}, overwrite=False):
        assert data_main(["lr", hr, "--scale", "2", "--output", str(tmp_path / "lr"), "--overwrite"]) == 2
    assert "lr/X2: is in use by" in capsys.readouterr().err
    with claimed(lock_beside(tmp_path / "set.lmdb"), "x", "wait"):
        assert data_main(["lmdb", hr, str(tmp_path / "set.lmdb")]) == 2
    assert "set.lmdb: is in use by" in capsys.readouterr().err
    assert data_main(["lmdb", hr, str(tmp_path / "set.lmdb")]) == 0
