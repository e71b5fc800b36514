"""Training loaders: the same samples however they are loaded, and what happens when files go bad."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data._utils import signal_handling

from mambair.data.augmentations import AugmentationChain, ChannelShuffle
from mambair.data.loaders import TrainLoader, to_device
from mambair.data.pairing import list_entries
from mambair.data.samplers import Draw, DrawSchedule, Stage, plan_batch
from mambair.data.seeded_dataset import LoadingFailed, SeededDataset, collate
from mambair.data.synthesis import GaussianNoise
from mambair.data.synthetic_dataset import SyntheticDataset
from mambair.data.transforms import Symmetries
from mambair.errors import UserError
from mambair.imaging.files import write_image

IMAGES = 7


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(IMAGES):
        write_image(tmp_path / f"{index}.png", rng.integers(0, 256, (20, 24, 3), dtype=np.uint8))
    return tmp_path


def dataset(folder: Path, seed: int = 10, **options) -> SeededDataset:
    entries = list_entries([folder], "dataroot_gt")
    patches = SyntheticDataset(entries, GaussianNoise(25), gt_size=8, symmetries=Symmetries(True, True))
    return SeededDataset(patches, seed, **options)


def stages(world_size: int, largest: int) -> DrawSchedule:
    return DrawSchedule(
        [Stage(0, plan_batch(8, world_size, largest), 8), Stage(3, plan_batch(4, world_size, largest), 16)]
    )


def load(source: Path | SeededDataset, world_size: int = 1, workers: int = 0, largest: int = 8, start: int = 0) -> dict:
    """(iteration, draw) -> (lq, gt, path) of all processes, from one step to the sixth."""
    seeded = dataset(source) if isinstance(source, Path) else source
    samples = {}
    schedule = stages(world_size, largest)
    for rank in range(world_size):
        loader = TrainLoader(seeded, schedule, rank=rank, start_iter=start, total_iter=6, num_workers=workers)
        with loader:
            for step in loader:
                assert step.total_batch == (8 if step.iteration < 3 else 4)
                for batch in step.micro_batches:
                    content = batch.content
                    for offset, path in enumerate(content["gt_path"]):
                        key = step.iteration, batch.first_draw + offset
                        assert key not in samples
                        samples[key] = (content["lq"][offset], content["gt"][offset], path)
    return samples


def assert_same(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for key, (lq, gt, path) in first.items():
        assert torch.equal(lq, second[key][0]), key
        assert torch.equal(gt, second[key][1]), key
        assert path == second[key][2]


@pytest.mark.parametrize(
    ("world_size", "workers", "largest"), [(1, 0, 3), (1, 2, 8), (1, 2, 1), (2, 0, 2), (2, 1, 4), (4, 0, 1)]
)
def test_samples_do_not_depend_on_processes_workers_or_accumulation(
    folder: Path, world_size: int, workers: int, largest: int
) -> None:
    assert_same(load(folder), load(folder, world_size, workers, largest))


@pytest.mark.parametrize(("start", "workers", "world_size"), [(1, 0, 1), (2, 2, 1), (3, 0, 2), (5, 1, 2)])
def test_a_resumed_run_gets_the_samples_that_were_left(folder: Path, start: int, workers: int, world_size: int) -> None:
    left = {key: sample for key, sample in load(folder).items() if key[0] >= start}
    assert_same(left, load(folder, world_size, workers, start=start))


def test_the_global_generators_play_no_part(folder: Path) -> None:
    before = load(folder)
    np.random.seed(1)
    torch.manual_seed(1)
    assert_same(before, load(folder))


def test_an_epoch_takes_every_image_once_in_a_new_order() -> None:
    class Images:
        def __len__(self) -> int:
            return 50

        def sample(self, index: int, rng: np.random.Generator) -> dict:
            return {"index": index, "number": rng.random()}

    seeded = SeededDataset(Images(), seed=3, enlarge_ratio=2)
    epochs = [[seeded[Draw(epoch * 100 + position, None)] for position in range(100)] for epoch in range(2)]
    orders = [[sample["index"] for sample in epoch] for epoch in epochs]
    assert all(sorted(order) == sorted([*range(50), *range(50)]) for order in orders)
    assert orders[0] != orders[1]
    assert len({sample["number"] for epoch in epochs for sample in epoch}) == 200
    assert seeded[Draw(7, None)] == epochs[0][7]
    other = SeededDataset(Images(), seed=4, enlarge_ratio=2)
    assert [other.index_of(number) for number in range(100)] != orders[0]
    in_order = SeededDataset(Images(), seed=3, enlarge_ratio=2, shuffle=False)
    assert [in_order.index_of(number) for number in range(101)] == [*range(50), *range(50), 0]


def damage(folder: Path) -> list[str]:
    """One file of each kind gone, truncated and shrunk; returns their names."""
    (folder / "1.png").unlink()
    data = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(data[: len(data) // 2])
    write_image(folder / "4.png", np.zeros((4, 4, 3), np.uint8))
    return ["1.png", "3.png", "4.png"]


@pytest.mark.parametrize("workers", [0, 2])
def test_files_that_go_bad_are_named_counted_and_replaced(folder: Path, workers: int, caplog) -> None:
    healthy = load(folder)
    seeded = dataset(folder)
    loader = TrainLoader(seeded, stages(1, 8), total_iter=6, num_workers=workers)
    bad = damage(folder)
    with caplog.at_level(logging.WARNING), loader:
        samples = [(step.iteration, batch) for step in loader for batch in step.micro_batches]
    expected = [key for key, sample in healthy.items() if Path(sample[2]).name in bad]
    assert len(expected) > 3
    assert len(loader.bad_files) == len(caplog.records) == 3
    for name, reason in (("1.png", "no such file"), ("3.png", "truncated"), ("4.png", "too few")):
        assert any(str(folder / name) in message and reason in message for message in caplog.messages), name
    assert "other images take its place; bad files so far: 3" in caplog.text
    paths = {path for _, batch in samples for path in batch.content["gt_path"]}
    assert paths == {str(folder / name) for name in ("0.png", "2.png", "5.png", "6.png")}
    assert all("bad_samples" not in batch.content for _, batch in samples)
    again = load(seeded, 2, 0, 2)
    for iteration, batch in samples:
        for offset, lq in enumerate(batch.content["lq"]):
            assert torch.equal(lq, again[iteration, batch.first_draw + offset][0])
    for key in healthy.keys() - set(expected):
        assert torch.equal(healthy[key][0], again[key][0])


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_bad_files_end_the_run(folder: Path, workers: int) -> None:
    loader = TrainLoader(dataset(folder), stages(1, 8), total_iter=6, num_workers=workers, max_bad_samples=2)
    damage(folder)
    with (
        loader,
        pytest.raises(UserError, match=r"3 files could not be used, the last one: .*png.*max_bad_samples") as raised,
    ):
        for _ in loader:
            pass
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_that_is_gone_ends_the_run_without_traceback(folder: Path, workers: int) -> None:
    loader = TrainLoader(dataset(folder), stages(1, 8), total_iter=6, num_workers=workers)
    for path in folder.iterdir():
        path.unlink()
    with (
        loader,
        pytest.raises(UserError, match=r"10 images in a row could not be read, the last one: .*no such file") as raised,
    ):
        next(iter(loader))
    assert "\n" not in str(raised.value)


class FaultyDataset:
    """Raises, or sends its process the signal `kill`, at the third sample."""

    def __init__(self, kill: signal.Signals | None = None) -> None:
        self.kill = kill

    def __len__(self) -> int:
        return 8

    def sample(self, index: int, rng: np.random.Generator) -> dict:
        if index == 3:
            if self.kill:
                os.kill(os.getpid(), self.kill)
            raise ZeroDivisionError("a mistake of ours")
        return {"lq": torch.zeros(1), "lq_path": "", "gt_path": ""}


def faulty_loader(kill: signal.Signals | None = None) -> TrainLoader:
    seeded = SeededDataset(FaultyDataset(kill), 0, shuffle=False)
    return TrainLoader(seeded, DrawSchedule([Stage(0, plan_batch(8, 1, 8), None)]), total_iter=2, num_workers=1)


def test_an_exception_in_a_worker_comes_with_its_traceback() -> None:
    with faulty_loader() as loader, pytest.raises(ZeroDivisionError, match="a mistake of ours") as raised:
        next(iter(loader))
    assert "in sample" in str(raised.value)
    assert "Original Traceback" in str(raised.value)


@pytest.mark.parametrize("torch_knows", [True, False])
@pytest.mark.parametrize(
    ("number", "remedy"),
    [(signal.SIGKILL, r"loader process died.*num_worker_per_gpu"), (signal.SIGBUS, r"shared memory.*--shm-size")],
)
def test_a_killed_worker_is_reported_with_a_remedy(
    number: signal.Signals, remedy: str, torch_knows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where torch finds the worker gone before it hears of its end, and says nothing of the signal."""
    if not torch_knows:
        monkeypatch.setattr(signal_handling, "_set_worker_pids", lambda *_: None)
        monkeypatch.setattr(signal_handling, "_remove_worker_pids", lambda *_: None)
    with pytest.raises(UserError, match=remedy), faulty_loader(number) as loader:
        next(iter(loader))


class SignalledDataset(FaultyDataset):
    """Sends its process what Ctrl-C and a pre-empting scheduler send."""

    def sample(self, index: int, rng: np.random.Generator) -> dict:
        if index == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
        return {"lq": torch.zeros(1), "lq_path": "", "gt_path": ""}


def test_workers_survive_the_signals_that_ask_a_run_to_stop() -> None:
    seeded = SeededDataset(SignalledDataset(), 0, shuffle=False)
    loader = TrainLoader(seeded, DrawSchedule([Stage(0, plan_batch(8, 1, 8), None)]), total_iter=1, num_workers=1)
    with loader:
        assert len(list(loader)) == 1


class ThreadCountDataset(FaultyDataset):
    """Samples say how many threads torch would use."""

    def sample(self, index: int, rng: np.random.Generator) -> dict:
        return {"lq": torch.tensor([torch.get_num_threads()]), "lq_path": "", "gt_path": ""}


def test_workers_use_one_thread_each() -> None:
    schedule = DrawSchedule([Stage(0, plan_batch(2, 1, 2), None)])
    with TrainLoader(SeededDataset(ThreadCountDataset(), 0), schedule, total_iter=1, num_workers=1) as loader:
        (step,) = loader
    assert step.micro_batches[0].content["lq"].unique().tolist() == [1]


def test_collate_passes_failures_on() -> None:
    failure = LoadingFailed("gone")
    assert collate([{"lq": torch.zeros(1), "bad_samples": []}, failure]) is failure


def test_to_device_moves_tensors_only() -> None:
    moved = to_device({"lq": torch.zeros(2), "lq_path": ["a", "b"]}, torch.device("meta"))
    assert moved["lq"].device.type == "meta"
    assert moved["lq_path"] == ["a", "b"]


ABANDONED = """
import sys
import numpy as np
import torch
from torch.utils.data._utils import signal_handling
from mambair.data.loaders import TrainLoader
from mambair.data.samplers import DrawSchedule, Stage, plan_batch
from mambair.data.seeded_dataset import SeededDataset

class Zeros:
    def __len__(self):
        return 8

    def sample(self, index, rng):
        return {"lq": torch.zeros(1), "lq_path": "", "gt_path": ""}

if __name__ == "__main__":
    schedule = DrawSchedule([Stage(0, plan_batch(4, 1, 4), None)])
    steps = iter(TrainLoader(SeededDataset(Zeros(), 0), schedule, total_iter=10**6, num_workers=1))
    next(steps)
    if sys.argv[1] == "exit":
        sys.exit(3)
    for step in steps:
        raise ZeroDivisionError
"""


@pytest.mark.parametrize(("how", "code"), [("exit", 3), ("raise", 1)])
def test_a_program_that_leaves_its_loader_open_ends(tmp_path: Path, how: str, code: int) -> None:
    script = tmp_path / "abandon.py"
    script.write_text(ABANDONED)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    ended = subprocess.run([sys.executable, str(script), how], env=environment, timeout=120, capture_output=True)
    assert ended.returncode == code


def test_augmentations_of_samples_have_a_stream_of_their_own() -> None:
    """They change the pair that would have been drawn, and nothing else; the same draw is changed alike."""

    class Numbered:
        def __len__(self) -> int:
            return 5

        def sample(self, index: int, rng: np.random.Generator) -> dict:
            value = torch.full((3, 2, 2), rng.random())
            value[0] += index
            return {"lq": value, "gt": value.repeat_interleave(2, 1).repeat_interleave(2, 2), "lq_path": str(index)}

    plain = SeededDataset(Numbered(), seed=4)
    shuffling = SeededDataset(Numbered(), seed=4, augment=AugmentationChain([ChannelShuffle(probability=1.0)]))
    orders = set()
    for number in range(20):
        before, after, again = plain[Draw(number, None)], shuffling[Draw(number, None)], shuffling[Draw(number, None)]
        assert before["lq_path"] == after["lq_path"]
        assert torch.equal(after["lq"], again["lq"])
        assert torch.equal(before["lq"].sort(dim=0).values, after["lq"].sort(dim=0).values)
        assert torch.equal(after["gt"][:, ::2, ::2], after["lq"])
        orders.add(int((after["lq"][:, 0, 0] - before["lq"][0, 0, 0]).abs().argmin()))
    assert orders == {0, 1, 2}
