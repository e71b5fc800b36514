"""Whatever happens to the files of a checkpoint: the run goes on from the newest whole one, and ends the same."""

import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from mambair.engine.checkpoints.complete import newest_complete
from tests.faults.processes import random_points
from tests.faults.scene import Scene

WEIGHTS, STATE, LIST = "models/net_g_4.pth", "training_states/4.state", "training_states/4.sha256"
PASSED_OVER = "checkpoint 4 is not complete and passed over"


class CodeInside:
    """Pickles to something that would run a command."""

    def __reduce__(self) -> tuple:
        return print, ("this must not run",)


class Fault(NamedTuple):
    """Something that happens to files of checkpoint 4."""

    name: str
    inject: Callable[[Path], None]
    """Called with the run's folder."""
    message: str
    goes_on_from: int = 2


def cut(part: str, share: float) -> Callable[[Path], None]:
    def inject(folder: Path) -> None:
        content = (folder / part).read_bytes()
        (folder / part).write_bytes(content[: int(share * len(content))])

    return inject


def flip(part: str, share: float) -> Callable[[Path], None]:
    def inject(folder: Path) -> None:
        content = bytearray((folder / part).read_bytes())
        content[int(share * len(content))] ^= 0x10
        (folder / part).write_bytes(content)

    return inject


def replace(part: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / part).write_bytes(content) and None


def remove(*parts: str) -> Callable[[Path], None]:
    def inject(folder: Path) -> None:
        for part in parts:
            (folder / part).unlink()

    return inject


def without_list(inject: Callable[[Path], None]) -> Callable[[Path], None]:
    """As in a run of BasicSR, which keeps no checksums."""

    def both(folder: Path) -> None:
        inject(folder)
        (folder / LIST).unlink()

    return both


def folder_instead(part: str) -> Callable[[Path], None]:
    def inject(folder: Path) -> None:
        (folder / part).unlink()
        (folder / part).mkdir()

    return inject


def tensors(content: object) -> Callable[[Path], None]:
    return lambda folder: torch.save(content, folder / STATE)


EVIL = pickle.dumps({"iter": 4, "optimizers": [CodeInside()]}, protocol=2)
SHARES = (0.0, 0.001, 0.25, 0.7, 0.999)
FAULTS = [
    *(
        Fault(f"weights cut at {share}", cut(WEIGHTS, share), "net_g_4.pth is damaged (its checksum")
        for share in SHARES
    ),
    *(
        Fault(f"state cut at {share}", cut(STATE, share), "4.state is damaged (its checksum differs)")
        for share in SHARES
    ),
    *(
        Fault(f"bare weights cut at {share}", without_list(cut(WEIGHTS, share)), "net_g_4.pth")
        for share in (0.001, 0.7)
    ),
    *(
        Fault(f"bare state cut at {share}", without_list(cut(STATE, share)), "4.state is damaged")
        for share in (0.25, 0.999)
    ),
    Fault("list of checksums empty", cut(LIST, 0), "4.sha256 is empty"),
    Fault("list of checksums cut", cut(LIST, 0.3), "4.sha256 is damaged"),
    Fault("byte of the weights changed", flip(WEIGHTS, 0.5), "net_g_4.pth is damaged"),
    Fault("byte of the state changed", flip(STATE, 0.9), "4.state is damaged"),
    Fault("byte of the list changed", flip(LIST, 0.01), "is damaged (its checksum differs)"),
    Fault("weights missing", remove(WEIGHTS), "models/net_g_4.pth is missing"),
    Fault("weights and list missing", remove(WEIGHTS, LIST), "net_g_4.pth: no such file"),
    Fault("list missing", remove(LIST), "", goes_on_from=4),
    Fault("state missing", remove(STATE), ""),
    Fault("a folder for the state", folder_instead(STATE), "4.state is missing"),
    Fault("a web page for the weights", without_list(replace(WEIGHTS, b"<html>")), "this is a web page, not weights"),
    Fault("code in the state", without_list(replace(STATE, EVIL)), "refused, it holds more than tensors ("),
    Fault("a list for the state", without_list(tensors([1])), "4.state is not a training state"),
    Fault("a state of odd build", without_list(tensors({"iter": "4", "optimizers": 1})), "is not a training state"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_run_goes_on_from_the_newest_whole_checkpoint(scene: Scene, fault: Fault) -> None:
    fault.inject(scene.folders.models.parent)
    outcome = scene.train()
    assert outcome.code == 0, outcome.output
    assert fault.message in outcome.output
    # A checkpoint without its state file is none: there is nothing to pass over.
    assert (PASSED_OVER in outcome.output) == bool(fault.message)
    assert f"going on after iteration {fault.goes_on_from} from" in outcome.output
    assert "this must not run" not in outcome.output
    assert "Traceback" not in outcome.output
    scene.assert_nothing_lost()


def test_all_checkpoints_damaged(scene: Scene) -> None:
    for path in scene.folders.training_states.glob("*.state"):
        path.write_bytes(path.read_bytes()[:1000])
    outcome = scene.train()
    assert outcome.code == 0
    assert "checkpoint 2 is not complete and passed over" in outcome.output
    assert "there is no complete checkpoint; the run begins anew" in outcome.output
    archived = list((scene.root / "experiments").glob("tiny_archived_*/models/net_g_4.pth"))
    assert len(archived) == 1  # what is left of the old run is kept
    scene.assert_nothing_lost()


def test_unreadable_file_of_a_failing_disk(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.open

    def fail(self: Path, *arguments, **keywords):
        if self.name == "net_g_4.pth":
            raise OSError(5, "Input/output error", str(self))
        return original(self, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        outcome = scene.train(train__total_iter=3)
    assert outcome.code == 0, outcome.output
    assert "net_g_4.pth cannot be read (Input/output error)" in outcome.output
    assert "going on after iteration 2 from" in outcome.output


@pytest.mark.parametrize("part", [WEIGHTS, STATE])
@pytest.mark.parametrize("checksums", [True, False])
def test_cut_or_changed_anywhere(scene: Scene, part: str, checksums: bool) -> None:
    """Many offsets; where no list of checksums is kept, those in torch's archive decide."""
    points: random.Random = random_points()
    path = scene.folders.models.parent / part
    whole = path.read_bytes()
    if not checksums:
        scene.folders.checksums(4).unlink()
    for _ in range(60):
        at = points.randrange(len(whole))
        path.write_bytes(whole[:at])
        assert newest_complete(scene.folders, ["net_g"]) == scene.folders.state(2), at
        path.write_bytes(whole[:at] + bytes([whole[at] ^ points.randint(1, 255)]) + whole[at + 1 :])
        # A changed byte between the parts of the archive changes nothing that is read.
        assert newest_complete(scene.folders, ["net_g"]) == scene.folders.state(2) or not checksums, at
    path.write_bytes(whole)
    assert newest_complete(scene.folders, ["net_g"]) == scene.folders.state(4)


@pytest.mark.parametrize("part", [WEIGHTS, STATE])
def test_named_checkpoint_that_is_damaged_is_refused(scene: Scene, part: str) -> None:
    flip(part, 0.5)(scene.folders.models.parent)
    state = str(scene.folders.state(4))
    outcome = scene.train(path__resume_state=state, name="other")
    assert outcome.code == 2
    assert "error: path.resume_state: " in outcome.output
    assert "is damaged" in outcome.output
    scene.assert_nothing_lost()
