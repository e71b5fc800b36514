"""Training images that go bad while a run goes on, and the processes that load them."""

import os
import signal
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mambair.data.lmdb_store import build_lmdb
from mambair.data.paired_dataset import PairedImageDataset
from mambair.imaging.files import write_image
from tests.engine.tiny_run import read_weights
from tests.faults.runs import differences, read_state
from tests.faults.scene import Scene, at_step

Patch = pytest.MonkeyPatch


class Fault(NamedTuple):
    """Something that happens to an image."""

    name: str
    damage: Callable[[Path], object]
    message: str
    folder: str = "HR"


def cut(share: float) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def shrink(path: Path) -> None:
    write_image(path, np.zeros((10, 12, 3), np.uint8))


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def bomb(path: Path) -> None:
    """A PNG that declares 60000 x 60000 pixels."""
    content = bytearray(path.read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)


FAULTS = [
    Fault("vanished", Path.unlink, "no such file"),
    Fault("empty", cut(0), "not an image, or a damaged one; replace or remove it"),
    Fault("cut in its header", cut(0.002), "replace or remove it"),
    Fault("cut", cut(0.5), "truncated PNG; replace or remove it"),
    Fault("cut by a byte", cut(0.9999), "truncated PNG; replace or remove it"),
    Fault("something else", lambda path: path.write_text("<html>"), "not an image, or a damaged one"),
    Fault("shrunk", shrink, "32x32 pixels do not fit its ground truth of 10x12 at scale 2"),
    Fault("a folder", make_folder, "cannot be read (Is a directory)"),
    Fault("a bomb", bomb, "declares 60000x60000 pixels, more than the limit of 134217728"),
    Fault("partner vanished", Path.unlink, "no such file", "LR"),
    Fault("partner cut", cut(0.5), "truncated PNG; replace or remove it", "LR"),
    Fault("partner shrunk", shrink, "10x12 pixels do not fit its ground truth of 64x64 at scale 2", "LR"),
]


def images(scene: Scene, folder: str) -> list[Path]:
    return sorted((scene.root / "photos" / folder).iterdir())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_other_images_take_the_place_of_bad_ones(scene: Scene, monkeypatch: Patch, fault: Fault) -> None:
    bad = images(scene, fault.folder)[:2]

    def damage(stepper: object) -> None:
        for path in bad:
            fault.damage(path)

    with monkeypatch.context() as patch:
        at_step(patch, 4, damage)
        outcome = scene.train(train__total_iter=10, logger__print_freq=1)
    assert outcome.code == 0, outcome.output
    for path in bad:
        assert path.stem.removesuffix("x2") in outcome.output
    assert fault.message in outcome.output
    assert "(other images take its place; bad files so far: 2)" in outcome.output
    assert "files of the training set that could not be used: 2" in outcome.output
    assert "Traceback" not in outcome.output
    scene.assert_checkpoint_kept()


@pytest.mark.parametrize("fault", [FAULTS[0], FAULTS[3], FAULTS[11]], ids=lambda fault: fault.name)
def test_too_many_bad_images_stop_the_run(scene: Scene, monkeypatch: Patch, fault: Fault) -> None:
    whole = {path: path.read_bytes() for path in images(scene, fault.folder)}
    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda stepper: [fault.damage(path) for path in list(whole)[:2]])
        outcome = scene.train(train__total_iter=50, datasets__train__max_bad_samples=1, val=None)
    assert outcome.code == 2
    assert "error: datasets.train: 2 files could not be used, the last one: " in outcome.output
    assert "repair the data, or raise max_bad_samples" in outcome.output
    assert "Traceback" not in outcome.output
    scene.assert_checkpoint_kept()
    for path, content in whole.items():
        path.write_bytes(content)
    for newer in scene.folders.iterations():
        if newer > 4:
            scene.folders.state(newer).unlink()  # made with other images in the bad ones' places
    scene.assert_nothing_lost()


def test_all_images_gone(scene: Scene, monkeypatch: Patch) -> None:
    whole = {path: path.read_bytes() for path in images(scene, "HR")}
    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda stepper: [path.unlink() for path in whole])
        outcome = scene.train()
    assert outcome.code == 2
    assert "error: 10 images in a row could not be read, the last one: " in outcome.output
    assert outcome.output.rstrip().endswith("no such file")
    for path, content in whole.items():
        path.write_bytes(content)
    scene.assert_nothing_lost()


def test_images_that_are_missing_when_a_run_goes_on(scene: Scene) -> None:
    options = scene.write_options()
    image = images(scene, "LR")[1]
    image.rename(scene.root / "away.png")
    before = scene.snapshot()
    outcome = scene.train(options=options)
    assert outcome.code == 2
    assert f"no partner '{image.stem}' (any image type)" in outcome.output
    assert "Traceback" not in outcome.output
    assert scene.snapshot() == before
    scene.assert_nothing_lost()


def test_validation_image_that_goes_bad_is_left_out_and_named(scene: Scene, monkeypatch: Patch) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda stepper: (scene.root / "held_out" / "LR" / "rocketx2.png").unlink())
        outcome = scene.train()
    assert outcome.code == 0, outcome.output
    assert "WARNING held_out: rocket is left out of the mean: " in outcome.output
    assert "rocketx2.png: no such file" in outcome.output
    assert "Traceback" not in outcome.output
    assert "validation at 6 on held_out: psnr " in outcome.output
    # Means over other images are nobody's best.
    assert read_state(scene.root, 6)["best"] == read_state(scene.root, 4)["best"]
    weights = [read_weights(root, 6) for root in (scene.reference, scene.root)]
    assert differences(*weights) == []


def mistake() -> None:
    raise ZeroDivisionError("a mistake in a worker")


def break_workers(patch: Patch, action: Callable[[], object], marker: Path) -> None:
    """From the moment on that the marker exists, samples of loader processes are not to be had."""
    original, parent = PairedImageDataset.sample, os.getpid()

    def sample(self, *arguments, **keywords):
        if marker.exists() and os.getpid() != parent:
            action()
        return original(self, *arguments, **keywords)

    patch.setattr(PairedImageDataset, "sample", sample)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS])
def test_killed_worker(scene: Scene, monkeypatch: Patch, number: signal.Signals) -> None:
    with monkeypatch.context() as patch:
        marker = scene.root / "now"
        break_workers(patch, lambda: os.kill(os.getpid(), number), marker)
        at_step(patch, 4, lambda stepper: marker.touch())
        outcome = scene.train(train__total_iter=60, val=None, datasets__train__num_worker_per_gpu=1)
    assert outcome.code == 2
    if number == signal.SIGBUS:  # what the system sends where the memory that processes share is used up
        assert "--shm-size" in outcome.output
    else:
        assert "error: a data loader process died" in outcome.output
        assert "if the machine ran out of memory, lower datasets.train.num_worker_per_gpu" in outcome.output
    scene.assert_checkpoint_kept()


def test_mistake_in_a_worker_comes_with_its_traceback(scene: Scene, monkeypatch: Patch) -> None:
    with monkeypatch.context() as patch:
        break_workers(patch, mistake, scene.root)
        with pytest.raises(ZeroDivisionError, match="a mistake in a worker") as raised:
            scene.train(datasets__train__num_worker_per_gpu=1)
    assert "Original Traceback" in str(raised.value)
    assert "in mistake" in str(raised.value)
    log = max((scene.root / "experiments/tiny").glob("train_*.log"), key=lambda path: path.stat().st_mtime_ns)
    assert "in mistake" in log.read_text()
    scene.assert_nothing_lost()


def test_workers_change_nothing(scene: Scene) -> None:
    assert scene.train(datasets__train__num_worker_per_gpu=2).code == 0
    scene.assert_nothing_lost()


LMDB = {"datasets__train__io_backend": {"type": "lmdb"}}


@pytest.fixture
def databases(scene: Scene) -> dict[str, object]:
    """The training images as LMDBs; returns the options that use them."""
    roots = {}
    for key, folder in (("dataroot_gt", "HR"), ("dataroot_lq", "LR")):
        build_lmdb(scene.root / "photos" / folder, scene.root / f"{folder}.lmdb")
        roots[f"datasets__train__{key}"] = str(scene.root / f"{folder}.lmdb")
    return LMDB | roots


@pytest.mark.parametrize("workers", [0, 2])
def test_databases_hold_the_same_samples(scene: Scene, databases: dict[str, object], workers: int) -> None:
    changes = {**databases, "datasets__train__num_worker_per_gpu": workers}
    before = {path: path.read_bytes() for path in scene.root.glob("*.lmdb/*")}
    outcome = scene.train(**changes)
    assert outcome.code == 0, outcome.output
    weights = [read_weights(root, 6) for root in (scene.reference, scene.root)]
    assert differences(*weights) == []
    assert {path: path.read_bytes() for path in scene.root.glob("*.lmdb/*")} == before


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_truncated_database_is_refused(scene: Scene, databases: dict[str, object], share: float) -> None:
    cut(share)(scene.root / "LR.lmdb" / "data.mdb")
    before = scene.snapshot()
    # Headers come from the list beside a database: it is opened when the first image is drawn.
    outcome = scene.train(**databases)
    assert outcome.code == 2
    assert "LR.lmdb" in outcome.output
    assert "truncated; copy it again" in outcome.output or "not an LMDB" in outcome.output
    assert "Traceback" not in outcome.output
    assert {path: content for path, content in scene.snapshot().items() if path in before} == before
    scene.assert_nothing_lost()


def test_bad_files_of_all_processes_are_counted_together(monkeypatch: Patch, caplog: pytest.LogCaptureFixture) -> None:
    from mambair.data import bad_files
    from mambair.data.seeded_dataset import BadSample
    from mambair.errors import UserError

    theirs = [BadSample(1, "1.png: no such file"), BadSample(7, "7.png: no such file")]
    monkeypatch.setattr(bad_files, "all_gather_object", lambda own: [own, theirs])
    files = bad_files.BadFiles(limit=2)
    files.add([BadSample(1, "1.png: no such file")])
    files.add([BadSample(1, "1.png: no such file")])
    files.share()
    assert len(files) == 2
    assert [record.getMessage() for record in caplog.records][-1].endswith("bad files so far: 2)")
    with pytest.raises(UserError, match="3 files could not be used, the last one: 8"):
        files.add([BadSample(8, "8.png: truncated")])
