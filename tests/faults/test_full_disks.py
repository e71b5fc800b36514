"""Disks that are full or fail while a run writes: it says so, older checkpoints stay, and nothing is lost."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mambair.engine.checkpoints.complete import newest_complete
from mambair.runtime.log_setup import LogFile
from tests.engine.tiny_run import HARD, train_main, train_options, write_options
from tests.faults.processes import one_line
from tests.faults.runs import assert_same_end, differences, read_state
from tests.faults.scene import Scene, at_step

Patch = pytest.MonkeyPatch


class Fault(NamedTuple):
    """A way in which writing fails from some moment on."""

    name: str
    inject: Callable[[Patch], None]
    reason: str


def fails(owner: type | object, function: str, number: int, suffix: str = "") -> Callable[[Patch], None]:
    """Let a function of files raise, for paths that end with `suffix`, after half of the content if it has any."""

    def inject(patch: Patch) -> None:
        original = getattr(owner, function)

        def broken(path: Path, *arguments, **keywords):
            if not str(path).endswith(suffix):
                return original(path, *arguments, **keywords)
            if function.startswith("write"):
                original(path, arguments[0][: len(arguments[0]) // 2], **keywords)
            raise OSError(number, os.strerror(number))

        patch.setattr(owner, function, broken)

    return inject


FAULTS = [
    Fault("no room for the weights", fails(Path, "write_bytes", errno.ENOSPC, ".pth"), "No space left on device"),
    Fault("no room for the state", fails(Path, "write_bytes", errno.ENOSPC, ".state"), "No space left on device"),
    Fault("no room for the checksums", fails(Path, "write_text", errno.ENOSPC, ".sha256"), "No space left on device"),
    Fault("quota used up", fails(Path, "write_bytes", errno.EDQUOT, ".state"), "Disk quota exceeded"),
    Fault("no room when it is flushed", fails(os, "fsync", errno.ENOSPC), "No space left on device"),
    Fault("disk fails when it is flushed", fails(os, "fsync", errno.EIO), "Input/output error"),
    Fault("disk fails when it is renamed", fails(Path, "replace", errno.EIO), "Input/output error"),
    Fault("disk turns read-only", fails(Path, "write_bytes", errno.EROFS), "Read-only file system"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_checkpoint_that_cannot_be_written(scene: Scene, monkeypatch: Patch, fault: Fault) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda stepper: fault.inject(patch))
        outcome = scene.train()
    assert outcome.code == 2
    assert f"checkpoint 6 could not be written ({fault.reason}); the last good checkpoint is" in outcome.output
    assert "error: the final weights could not be written; make room and start again" in outcome.output
    assert "training_states/4.state (--auto_resume goes on from it)" in outcome.output
    assert "Traceback" not in outcome.output
    assert not list(scene.root.rglob(".tmp-*"))
    scene.assert_checkpoint_kept()
    scene.assert_nothing_lost()


def test_older_checkpoints_are_not_pruned_for_one_that_is_not_there(scene: Scene, monkeypatch: Patch) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda stepper: fails(Path, "write_bytes", errno.ENOSPC, ".state")(patch))
        assert scene.train(logger__keep_checkpoints=1).code == 2
    assert newest_complete(scene.folders, ["net_g"]) == scene.folders.state(4)
    assert not scene.folders.weights("net_g", 6).exists()  # without its state it would only take room
    scene.assert_nothing_lost()


def no_room_for_lines(patch: Patch) -> None:
    def flush(self: LogFile) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    patch.setattr(LogFile, "flush", flush)


def no_room_for_curves(patch: Patch) -> None:
    from torch.utils.tensorboard import SummaryWriter  # takes a second, which other tests need not pay

    fails(SummaryWriter, "add_scalar", errno.ENOSPC)(patch)


@pytest.mark.parametrize(
    ("inject", "message"),
    [
        (fails(Path, "write_bytes", errno.ENOSPC, ".png"), "the image rocket could not be written (No space left on"),
        (no_room_for_lines, ".log: lines cannot be written to the log (No space left on device)"),
        (no_room_for_curves, "TensorBoard's files could not be written (No space left on device); curves end here"),
    ],
    ids=["images", "log", "curves"],
)
def test_what_is_not_needed_does_not_end_a_run(
    scene: Scene, monkeypatch: Patch, inject: Callable[[Patch], None], message: str
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda stepper: inject(patch))
        outcome = scene.train(val__save_img=True, logger__use_tb_logger=True)
    assert outcome.code == 0, outcome.output
    assert outcome.output.count(message) == 1
    assert "Traceback" not in outcome.output
    assert_same_end(scene.reference, scene.root, 6)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of a given size, where this user may."""
    folder = tmp_path / "small"
    folder.mkdir()

    def mount(size: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small disk needs the rights to")
        return folder

    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def test_a_disk_that_really_is_full(scene: Scene, mounted: Callable[[str], Path], capfd: pytest.CaptureFixture) -> None:
    """Room for two checkpoints and the log, not for a third one; once there is more room, the run goes on there."""
    disk = mounted("560k")
    options = train_options(scene.root, **HARD, path__root=str(disk))
    file = write_options(scene.root, options)
    assert train_main(["-opt", str(file)]) == 2
    output = one_line("".join(capfd.readouterr()))
    assert "checkpoint 6 could not be written (No space left on device); the last good checkpoint is" in output
    assert "training_states/4.state (--auto_resume goes on from it)" in output
    assert not list(disk.rglob(".tmp-*"))
    first, second = (read_state(root, 4) for root in (scene.reference, disk))
    assert differences({**first, "processes": 0}, {**second, "processes": 0}) == []
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
    assert train_main(["-opt", str(file), "--auto_resume"]) == 0
    assert_same_end(scene.reference, disk, 6)


def test_no_room_to_begin(scene: Scene, mounted: Callable[[str], Path]) -> None:
    outcome = scene.train(path__root=str(mounted("8k")))
    assert outcome.code == 2
    assert "effective_options.yml: No space left on device; mend that and start again" in outcome.output
    assert "Traceback" not in outcome.output
