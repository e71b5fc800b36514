"""Two processes do what one does: the same total batch, the same gradients, the same validation numbers."""

import json
from pathlib import Path

import pytest
import torch

from mambair.analysis.log_lines import read_pieces
from mambair.commands.test import main as evaluate
from tests.engine.tiny_run import read_weights, train, train_options, write_options
from tests.engine.tiny_run import test_options as make_test_options
from tests.engine.two_processes import SETTINGS as SHARED
from tests.engine.two_processes import assert_close, torchrun, without_gpu

SETTINGS = {**SHARED, "network_g__drop_path_rate": 0.0}

pytestmark = without_gpu


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("two")
    options = write_options(root, train_options(root, datasets__train__batch_size_per_gpu=2, **SETTINGS))
    return root, torchrun(root, "train.py", options).stdout


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
