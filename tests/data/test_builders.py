"""From option files to data sets: every type and task, and every message."""

import logging
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
import yaml

from mambair.commands.data import main as data_tools
from mambair.data.lmdb_store import build_lmdb
from mambair.data.loaders import build_schedule, build_train_loader, build_val_datasets
from mambair.data.paired_dataset import PairedImageDataset
from mambair.data.single_dataset import SingleImageDataset
from mambair.data.synthetic_dataset import SyntheticDataset
from mambair.errors import UserError
from mambair.imaging.files import read_image, write_image
from mambair.imaging.jpeg import jpeg_compress
from mambair.imaging.resize import imresize
from mambair.imaging.tensors import tensor_to_image
from mambair.options import parse_test_options, parse_train_options
from mambair.runtime.distributed import ProcessGroup

PHOTO = skimage.data.astronaut()[:128, 150:300]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images in gt, their x2 reductions in lq, and JPEGs of quality 10 in jpeg."""
    for index in range(3):
        image = PHOTO[16 * index : 16 * index + 96, 8 * index : 8 * index + 96]
        write_image(tmp_path / "gt" / f"{index}.png", image)
        write_image(tmp_path / "lq" / f"{index}x2.png", imresize(image, 1 / 2))
        gray = jpeg_compress(np.ascontiguousarray(image[..., :1]), 10)
        write_image(tmp_path / "jpeg" / f"{index}.png", gray)
    return tmp_path


def train_options(root: Path, section: dict, scale: int = 1, **top):
    content = {
        "name": "run",
        "scale": scale,
        "num_gpu": 1,
        "manual_seed": 10,
        "datasets": {"train": {"batch_size_per_gpu": 4, "gt_size": 32, "num_worker_per_gpu": 0, **section}},
        "network_g": {"type": "MambaIR", "upscale": scale},
        "train": {
            "total_iter": 3,
            "optim_g": {"type": "Adam", "lr": 1e-3},
            "pixel_opt": {"type": "L1Loss"},
        },
        **top,
    }
    path = root / "train.yml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return parse_train_options(path)


def val_datasets(root: Path, section: dict, scale: int = 1) -> dict:
    content = {
        "name": "run",
        "scale": scale,
        "num_gpu": 0,
        "datasets": {"test_1": {"name": "Photos", **section}},
        "network_g": {"type": "MambaIR", "upscale": scale},
        "val": {"metrics": {"psnr": {"type": "calculate_psnr"}}},
    }
    path = root / "test.yml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return build_val_datasets(parse_test_options(path))


def first_batch(options) -> dict:
    with build_train_loader(options, ProcessGroup()) as loader:
        return next(iter(loader)).micro_batches[0].content


CASES = {
    "SR pairs": ({"type": "PairedImageDataset", "dataroot_lq": "lq", "filename_tmpl": "{}x2"}, 2, 3, 16),
    "SR on the fly": ({"type": "SyntheticDataset"}, 2, 3, 16),
    "colour noise": (
        {"type": "PairedImageDataset", "task": "denoising_color", "noise": 25, "dataroot_lq": "gt"},
        1,
        3,
        32,
    ),
    "gray noise": ({"type": "SyntheticDataset", "task": "denoising_gray", "noise": 25}, 1, 1, 32),
    "JPEG pairs": ({"type": "PairedImageDataset", "task": "CAR", "dataroot_lq": "jpeg"}, 1, 1, 32),
    "JPEG on the fly": ({"type": "PairedImageDataset", "task": "CAR", "quality": 10}, 1, 1, 32),
    "colour JPEG": ({"type": "SyntheticDataset", "task": "CAR", "quality": 10, "color": "rgb"}, 1, 3, 32),
    "real noise": ({"type": "Dataset_PairedImage", "dataroot_lq": "gt", "geometric_augs": True}, 1, 3, 32),
    "luma": ({"type": "PairedImageDataset", "dataroot_lq": "lq", "filename_tmpl": "{}x2", "color": "y"}, 2, 1, 16),
}


@pytest.mark.parametrize("case", CASES)
def test_every_task_trains_and_validates(root: Path, case: str) -> None:
    section, scale, channels, lq_size = CASES[case]
    section = {"dataroot_gt": str(root / "gt"), **section}
    if "dataroot_lq" in section:
        section["dataroot_lq"] = str(root / section["dataroot_lq"])
    batch = first_batch(train_options(root, section, scale))
    assert batch["gt"].shape == (4, channels, 32, 32)
    assert batch["lq"].shape == (4, channels, lq_size, lq_size)
    (dataset,) = val_datasets(root, section, scale).values()
    sample = dataset[1]
    assert sample["gt"].shape == (channels, 96, 96)
    assert sample["lq"].shape == (channels, 96 // scale, 96 // scale)
    assert dataset.paths == [str(root / "gt" / f"{index}.png") for index in range(3)]
    enlarged = torch.nn.functional.interpolate(sample["lq"][None], scale_factor=scale, mode="bicubic")[0]
    assert 0 < (enlarged - sample["gt"]).abs().mean() < 0.1 or case == "real noise"


def test_lmdb_gives_what_folders_give(root: Path) -> None:
    section = {"type": "PairedImageDataset", "use_hflip": True, "use_rot": True, "filename_tmpl": "{}x2"}
    roots = {f"dataroot_{kind}": str(root / kind) for kind in ("gt", "lq")}
    expected = first_batch(train_options(root, section | roots, 2))
    for kind in ("gt", "lq"):
        build_lmdb(root / kind, root / f"{kind}.lmdb")
    roots = {key: f"{path}.lmdb" for key, path in roots.items()}
    batch = first_batch(train_options(root, {**section, **roots, "io_backend": {"type": "lmdb"}}, 2))
    assert torch.equal(batch["lq"], expected["lq"])
    assert torch.equal(batch["gt"], expected["gt"])


def test_single_images_of_several_roots(root: Path) -> None:
    section = {"type": "SingleImageDataset", "dataroot_lq": [str(root / "lq"), str(root / "jpeg")]}
    (dataset,) = val_datasets(root, section, 2).values()
    assert isinstance(dataset, SingleImageDataset)
    assert len(dataset) == 6
    assert dataset[5]["lq"].shape == (3, 96, 96)
    with pytest.raises(UserError, match="no ground truth to train on"):
        build_train_loader(train_options(root, section, 2), ProcessGroup())


def test_types(root: Path) -> None:
    gt = {"dataroot_gt": str(root / "gt")}
    noise = {"task": "denoising_color", "noise": 25}
    (dataset,) = val_datasets(root, {"type": "PairedImageDataset", **gt, **noise}).values()
    assert isinstance(dataset, SyntheticDataset)
    (dataset,) = val_datasets(root, {"type": "PairedImageDataset", **gt, "dataroot_lq": str(root / "gt")}).values()
    assert isinstance(dataset, PairedImageDataset)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"type": "PairedImageDatset"}, "unknown dataset 'PairedImageDatset'; did you mean 'PairedImageDataset'"),
        ({"type": "PairedImageDataset"}, "key 'dataroot_lq' is missing"),
        (
            {"type": "SyntheticDataset", "task": "CAR", "quality": 9, "dataroot_gt": None},
            "key 'dataroot_gt' is missing",
        ),
        ({"type": "SyntheticDataset"}, "key 'task' is missing"),
        ({"type": "SyntheticDataset", "task": "CAR"}, "key 'quality' is missing"),
        ({"type": "SingleImageDataset"}, "key 'dataroot_lq' is missing"),
        ({"type": "PairedImageDataset", "dataroot_lq": "nowhere"}, "dataroot_lq: nowhere: no such folder"),
    ],
)
def test_messages_name_file_line_and_key(root: Path, section: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        val_datasets(root, {"dataroot_gt": str(root / "gt"), **section})
    assert str(raised.value).startswith(f"{root / 'test.yml'}:")
    assert "datasets.test_1" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_training_needs_a_patch_that_fits(root: Path) -> None:
    section = {"type": "SyntheticDataset", "dataroot_gt": str(root / "gt")}
    with pytest.raises(UserError, match="key 'gt_size' is missing"):
        build_train_loader(train_options(root, {**section, "gt_size": None}, 2), ProcessGroup())
    with pytest.raises(UserError, match=r"3 problems with its images:\n.*96x96 pixels are too few for gt_size 100"):
        build_train_loader(train_options(root, {**section, "gt_size": 100}, 2), ProcessGroup())


def test_only_the_first_process_looks_at_all_files(root: Path) -> None:
    section = {"type": "SyntheticDataset", "dataroot_gt": str(root / "gt")}
    (root / "gt" / "1.png").write_text("no image")
    options = train_options(root, section, 2)
    with pytest.raises(UserError, match=r"1 problem with its images:\n.*1\.png: not an image"):
        build_train_loader(options, ProcessGroup(0, 2, 0))
    assert len(build_train_loader(options, ProcessGroup(1, 2, 1))) == 3


def test_the_total_batch_of_a_file_is_kept_and_logged(root: Path, caplog) -> None:
    section = {"type": "SyntheticDataset", "dataroot_gt": str(root / "gt")}
    options = train_options(root, section, 2, num_gpu=8)
    with caplog.at_level(logging.INFO, logger="mambair.data.loaders"):
        build_train_loader(options, ProcessGroup(0, 2, 0))
    assert "total batch 32 = 2 processes x 4 x 4 accumulation steps" in caplog.text
    with pytest.raises(UserError, match="total batch of 32 cannot be shared by 3 processes"):
        build_schedule(options, 3)
    automatic = train_options(root, section, 2, num_gpu="auto")
    assert [str(build_schedule(automatic, count).stages[0].plan) for count in (1, 3)] == [
        "total batch 4 = 1 process x 4 x 1 accumulation step",
        "total batch 12 = 3 processes x 4 x 1 accumulation step",
    ]


def test_progressive_patches_and_batches(root: Path) -> None:
    section = {
        "type": "Dataset_PairedImage",
        "dataroot_gt": str(root / "gt"),
        "dataroot_lq": str(root / "gt"),
        "batch_size_per_gpu": 8,
        "gt_size": 64,
        "mini_batch_sizes": [4, 2, 1],
        "iters": [1, 1, 1],
        "gt_sizes": [16, 32, 64],
    }
    options = train_options(root, section, num_gpu=2)
    with build_train_loader(options, ProcessGroup()) as loader:
        steps = list(loader)
    shapes = [[tuple(batch.content["gt"].shape) for batch in step.micro_batches] for step in steps]
    assert shapes == [[(4, 3, 16, 16)] * 2, [(2, 3, 32, 32)] * 2, [(1, 3, 64, 64)] * 2]
    assert [step.total_batch for step in steps] == [8, 4, 2]
    assert [batch.first_draw for step in steps for batch in step.micro_batches] == [0, 4, 8, 10, 12, 13]
    with build_train_loader(options, ProcessGroup(), start_iter=2) as resumed:
        (last,) = resumed
    assert torch.equal(last.micro_batches[1].content["gt"], steps[2].micro_batches[1].content["gt"])


@pytest.mark.parametrize(("color", "mode"), [("gray", "gray"), ("y", "y")])
def test_gray_jpeg_pairs_are_the_same_from_files_and_on_the_fly(root: Path, color: str, mode: str) -> None:
    made = ["jpeg", str(root / "gt"), "--quality", "10", "--channels", color, "--output", str(root / "files")]
    assert data_tools(made) == 0
    section = {"task": "CAR", "color": color, "dataroot_gt": str(root / "gt")}
    disk = {**section, "type": "PairedImageDataset", "dataroot_lq": str(root / "files" / "q10")}
    on_disk = val_datasets(root, disk)["Photos"]
    on_the_fly = val_datasets(root, {**section, "type": "SyntheticDataset", "quality": 10})["Photos"]
    for index in range(3):
        first, second = on_disk[index], on_the_fly[index]
        image = read_image(root / "gt" / f"{index}.png", mode)
        np.testing.assert_array_equal(tensor_to_image(first["gt"]), image)
        np.testing.assert_array_equal(tensor_to_image(first["lq"]), jpeg_compress(image, 10))
        assert torch.equal(first["gt"], second["gt"]) and torch.equal(first["lq"], second["lq"])
