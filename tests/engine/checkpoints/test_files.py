"""Checkpoints are whole or not there, and what is damaged is found."""

import errno
import pickle
from collections import Counter
from pathlib import Path

import pytest
import torch

from mambair.archs import load_network
from mambair.engine.checkpoints.complete import newest_complete
from mambair.engine.checkpoints.files import CheckpointFolders, read_state
from mambair.errors import UserError
from mambair.runtime.files import sha256_of
from tests.engine.tiny_run import read_weights, same_weights, train


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    assert train(root, train__total_iter=4, val=None) == 0
    return root


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> CheckpointFolders:
    """A copy of a run with checkpoints 2 and 4."""
    source = finished / "experiments" / "tiny"
    folders = CheckpointFolders(tmp_path / "models", tmp_path / "training_states")
    for folder in (folders.models, folders.training_states):
        folder.mkdir()
        for path in (source / folder.name).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
    return folders


def test_files_are_as_basicsr_writes_them(finished: Path) -> None:
    weights = read_weights(finished, 4)
    assert {"params", "params_ema"} <= weights.keys()
    state = torch.load(finished / "experiments/tiny/training_states/4.state", weights_only=True)
    assert state["iter"] == 4
    assert len(state["optimizers"]) == len(state["schedulers"]) == 1
    network = load_network(finished / "experiments/tiny/models/net_g_4.pth", param_key="params_ema")
    assert network.hyperparameters["drop_path_rate"] == 0.3


def test_newest_complete(run: CheckpointFolders) -> None:
    assert newest_complete(run, ["net_g"]) == run.state(4)


@pytest.mark.parametrize("part", ["models/net_g_4.pth", "training_states/4.state"])
@pytest.mark.parametrize("cut", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_part_is_found(run: CheckpointFolders, part: str, cut: float) -> None:
    path = run.models.parent / part
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole))])
    assert newest_complete(run, ["net_g"]) == run.state(2)
    # Also where nothing vouches for the files, as in a run of BasicSR.
    run.checksums(4).unlink()
    assert newest_complete(run, ["net_g"]) == run.state(2)


@pytest.mark.parametrize("offset", [0.05, 0.4, 0.8])
def test_changed_byte_is_found(run: CheckpointFolders, offset: float) -> None:
    content = bytearray(run.weights("net_g", 4).read_bytes())
    content[int(offset * len(content))] ^= 1
    run.weights("net_g", 4).write_bytes(content)
    assert newest_complete(run, ["net_g"]) == run.state(2)


@pytest.mark.parametrize("content", ["", "no checksum", "0" * 64 + "  ../models/net_g_4.pth\n"])
def test_damaged_list_of_checksums_vouches_for_nothing(run: CheckpointFolders, content: str) -> None:
    run.checksums(4).write_text(content)
    assert newest_complete(run, ["net_g"]) == run.state(2)


@pytest.mark.parametrize("part", ["models/net_g_4.pth", "training_states/4.state"])
def test_missing_part_is_found(run: CheckpointFolders, part: str) -> None:
    (run.models.parent / part).unlink()
    assert newest_complete(run, ["net_g"]) == run.state(2)
    run.checksums(4).unlink()
    assert newest_complete(run, ["net_g"]) == run.state(2)


def test_nothing_complete(run: CheckpointFolders, tmp_path: Path) -> None:
    for iteration in (2, 4):
        run.weights("net_g", iteration).unlink()
    assert newest_complete(run, ["net_g"]) is None
    assert newest_complete(CheckpointFolders(tmp_path / "none", tmp_path / "nowhere"), ["net_g"]) is None


def test_checksums_are_those_of_sha256sum(run: CheckpointFolders) -> None:
    for line in run.checksums(4).read_text().splitlines():
        checksum, name = line.split("  ")
        assert sha256_of(run.training_states / name) == checksum


def test_keep_checkpoints_prunes_the_oldest(tmp_path: Path) -> None:
    assert train(tmp_path, logger__keep_checkpoints=2, logger__save_checkpoint_freq=1) == 0
    experiment = tmp_path / "experiments" / "tiny"
    models = {"net_g_5.pth", "net_g_6.pth", "net_g_best.pth", "net_g_latest.pth"}
    assert {path.name for path in (experiment / "models").iterdir()} == models
    assert same_weights(read_weights(tmp_path, "latest"), read_weights(tmp_path, 6))
    states = {"5.state", "5.sha256", "6.state", "6.sha256"}
    assert {path.name for path in (experiment / "training_states").iterdir()} == states


def fail_writing(monkeypatch: pytest.MonkeyPatch, suffix: str, after: int) -> None:
    """Let the disk be full from the given write of a file with that suffix on."""
    original = Path.write_bytes
    count = [0]

    def write_bytes(self: Path, content: bytes) -> int:
        if self.suffix == suffix:
            count[0] += 1
            if count[0] > after:
                original(self, bytes(content[: len(content) // 2]))
                raise OSError(errno.ENOSPC, "No space left on device")
        return original(self, content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)


@pytest.mark.parametrize("suffix", [".pth", ".state"])
def test_full_disk_keeps_the_previous_checkpoint_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, suffix: str
) -> None:
    fail_writing(monkeypatch, suffix, after=1)
    assert train(tmp_path, val=None) == 2
    output = capfd.readouterr()
    logged = " ".join(output.out.split())
    assert "checkpoint 4 could not be written (No space left on device)" in logged
    assert "checkpoint 6 could not be written" in logged
    assert "the final weights could not be written; make room and start again" in output.err
    folders = CheckpointFolders(tmp_path / "experiments/tiny/models", tmp_path / "experiments/tiny/training_states")
    assert newest_complete(folders, ["net_g"]) == folders.state(2)
    assert not list(tmp_path.rglob(".tmp-*"))


def test_state_of_basicsr_is_gone_on_from(run: CheckpointFolders, tmp_path: Path) -> None:
    state = torch.load(run.state(4), weights_only=True)
    schedulers = [{"milestones": Counter([4]), "gamma": 0.5, "last_epoch": 4}]
    torch.save({"epoch": 1, "iter": 4, "optimizers": state["optimizers"], "schedulers": schedulers}, run.state(4))
    run.checksums(4).unlink()
    assert train(tmp_path, path__resume_state=str(run.state(4))) == 0
    assert read_weights(tmp_path, 6)["params"].keys() == read_weights(tmp_path, "best")["params"].keys()


class Evil:
    def __reduce__(self) -> tuple:
        return print, ("this must not run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"iter": 1, "optimizers": [Evil()]}, protocol=2), "holds more than tensors"),
        (b"", "is damaged"),
        (b"not a checkpoint at all", "damaged"),
        (None, "does not exist"),
    ],
)
def test_file_that_is_no_state_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, content: bytes | None, message: str
) -> None:
    path = tmp_path / "1.state"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_state(path)
    assert "\n" not in str(caught.value)
    assert "must not run" not in capsys.readouterr().out


def test_weights_given_as_state_say_so(run: CheckpointFolders) -> None:
    with pytest.raises(UserError, match=r"is not a training state \(weights go to path.pretrain_network_g\)"):
        read_state(run.weights("net_g", 4))


def test_state_without_its_weights(run: CheckpointFolders, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run.weights("net_g", 4).unlink()
    assert train(tmp_path, path__resume_state=str(run.state(4))) == 2
    assert "models/net_g_4.pth is missing; go on from another state" in capsys.readouterr().err
    run.checksums(4).unlink()  # as in a run of BasicSR
    assert train(tmp_path, path__resume_state=str(run.state(4))) == 2
    assert "net_g_4.pth, the weights that belong to the state, do not exist" in capsys.readouterr().err
    assert not (tmp_path / "experiments").exists()


def test_state_of_another_network(run: CheckpointFolders, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train(tmp_path, path__resume_state=str(run.state(4)), network_g__embed_dim=12) == 2
    assert "network_g" in capsys.readouterr().err
    assert not (tmp_path / "experiments").exists()
