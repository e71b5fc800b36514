"""Two processes do what one does: the same total batch, the same gradients, the same validation numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mambair.analysis.log_lines import read_pieces
from mambair.commands.test import main as evaluate
from tests.engine.tiny_run import read_weights, train, train_options, write_options
from tests.engine.tiny_run import test_options as make_test_options

PROJECT = Path(__file__).resolve().parents[3]

# Adam divides gradients by their size: with its usual eps the rounding errors of tiny ones would be enlarged.
SETTINGS = {
    "num_gpu": "auto",
    "dist_params": {"timeout": 60},
    "network_g__drop_path_rate": 0.0,
    "train__optim_g": {"type": "Adam", "lr": 1e-3, "eps": 1e-3},
    "train__total_iter": 4,
    "logger__save_checkpoint_freq": 2,
    "val__val_freq": 4,
}

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="num_gpu: auto takes the CPU only without CUDA")


def torchrun(root: Path, script: str, options: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    finished = subprocess.run(
        [*command, str(PROJECT / "mambair" / script), "-opt", str(options), "--launcher", "pytorch"],
        cwd=root,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("two")
    options = write_options(root, train_options(root, datasets__train__batch_size_per_gpu=2, **SETTINGS))
    return root, torchrun(root, "train.py", options).stdout


def assert_close(first: dict, second: dict) -> None:
    for part in ("params", "params_ema"):
        assert first[part].keys() == second[part].keys()
        for key, value in first[part].items():
            torch.testing.assert_close(value, second[part][key], rtol=1e-4, atol=1e-6, msg=key)


def test_one_process_with_the_same_total_batch_learns_the_same(two_processes: tuple[Path, str], tmp_path: Path) -> None:
    root, log = two_processes
    assert "total batch 4 = 2 processes x 2 x 1 accumulation step" in log
    assert log.count("iter 4/4") == 1  # the first process alone speaks
    assert train(tmp_path, datasets__train__batch_size_per_gpu=4, **SETTINGS) == 0
    assert_close(read_weights(tmp_path, 4), read_weights(root, 4))
    start = torch.load(tmp_path / "experiments/tiny/models/net_g_2.pth", weights_only=True)["params"]
    moved = [not torch.allclose(start[key], value, atol=1e-4) for key, value in read_weights(root, 4)["params"].items()]
    assert sum(moved) > len(moved) / 2


def test_one_process_goes_on_with_what_two_began(
    two_processes: tuple[Path, str], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    root, _ = two_processes
    state = root / "experiments/tiny/training_states/2.state"
    assert train(tmp_path, path__resume_state=str(state), datasets__train__batch_size_per_gpu=2, **SETTINGS) == 0
    assert "total batch 4 = 1 process x 2 x 2 accumulation steps" in capfd.readouterr().out
    assert_close(read_weights(tmp_path, 4), read_weights(root, 4))
    logs = [log for folder in (root, tmp_path) for log in (folder / "experiments/tiny").glob("train_*.log")]
    pieces = [piece for log in logs for piece in read_pieces(log.read_text().splitlines())]
    assert [(piece.start, piece.devices.count, piece.micro_batch(4)) for piece in pieces] == [(0, 2, 2), (2, 1, 2)]


def test_validation_on_two_processes_is_equal_to_the_last_digit(
    two_processes: tuple[Path, str], tmp_path: Path
) -> None:
    weights = two_processes[0] / "experiments/tiny/models/net_g_4.pth"
    options = write_options(tmp_path, make_test_options(tmp_path, weights, val__save_img=True))
    results = tmp_path / "results" / "tiny_test"
    assert evaluate(["-opt", str(options)]) == 0
    alone = json.loads((results / "metrics.json").read_text())
    torchrun(tmp_path, "test.py", options)
    together = json.loads((results / "metrics.json").read_text())
    assert together == alone
    assert list(together["datasets"]["held_out"]["images"]) == list(alone["datasets"]["held_out"]["images"])
    assert len(list((results / "visualization" / "held_out").iterdir())) == 3
