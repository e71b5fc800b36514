"""The warnings of `mambair data check`."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from mambair.commands.data import main
from mambair.commands.data.findings import Finding
from mambair.imaging.files import write_image
from mambair.imaging.resize import imresize

TEMPLATE = """
name: checked
scale: 2
datasets:
  train: {{type: SyntheticDataset, task: SR, dataroot_gt: {root}/train, gt_size: 32, batch_size_per_gpu: 1}}
  val: {{type: SyntheticDataset, task: SR, dataroot_gt: {root}/val}}
network_g: {{type: MambaIR, upscale: 2}}
train:
  total_iter: 1
  optim_g: {{type: Adam, lr: 1e-4}}
  pixel_opt: {{type: L1Loss}}
"""
TEST = """
name: tested
scale: 2
datasets:
  test_1: {{type: SyntheticDataset, task: SR, dataroot_gt: {root}/test}}
network_g: {{type: MambaIR, upscale: 2}}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("astronaut", "coffee", "chelsea"):
        write_image(tmp_path / "train" / f"{name}.png", getattr(skimage.data, name)())
    write_image(tmp_path / "val" / "rocket.png", imresize(skimage.data.rocket(), 0.7))  # it was a JPEG file once
    write_image(tmp_path / "test" / "face.png", imresize(skimage.data.astronaut()[0:300, 80:400], 0.71))
    for name, text in (("checked.yml", TEMPLATE), ("tested.yml", TEST)):
        (tmp_path / name).write_text(text.format(root=tmp_path), encoding="utf-8")
    return tmp_path


def warnings(root: Path, capsys: pytest.CaptureFixture, *arguments: str) -> list[str]:
    """The lines of warnings, the folder's path left out."""
    assert main(["check", "-opt", str(root / "checked.yml"), *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    begin = next((index for index, line in enumerate(lines) if line.startswith("warning")), len(lines) - 1)
    assert lines[-1] == "all images are there, fit together and can be read"
    return [line.replace(f"{root}/", "") for line in lines[begin:-1]]


def test_clean_sets_have_no_warnings(root: Path, capsys: pytest.CaptureFixture) -> None:
    assert warnings(root, capsys) == []


def test_a_photo_of_a_test_file_or_folder(root: Path, capsys: pytest.CaptureFixture) -> None:
    expected = [
        "warning: 1 photo of the training set in a validation or test set too",
        "  train/astronaut.png: shows 99% of test/face.png, where it is 0.71 times as large "
        "(tested.yml: datasets.test_1)",
    ]
    assert warnings(root, capsys, "--against", str(root / "tested.yml")) == expected
    expected[1] = expected[1].replace("tested.yml: datasets.test_1", "test")
    found = warnings(root, capsys, "--against", str(root / "test"))
    assert [line.replace(str(root), "").replace("(/", "(") for line in found] == expected


def test_the_same_file_in_two_sets(root: Path, capsys: pytest.CaptureFixture) -> None:
    text = (root / "checked.yml").read_text(encoding="utf-8")
    (root / "checked.yml").write_text(text.replace(f"{root}/val", f"{root}/train"), encoding="utf-8")
    found = warnings(root, capsys)
    assert found[0] == "warning: 3 photos of the training set in a validation or test set too"
    assert found[1] == "  train/astronaut.png: the same file is in datasets.val"


def test_copies_within_a_set(root: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copy(root / "train" / "coffee.png", root / "train" / "d.png")
    write_image(root / "train" / "e.png", imresize(skimage.data.chelsea(), 0.5))
    found = warnings(root, capsys)
    assert found == [
        "warning: datasets.train: 1 pair of equal images",
        "  train/coffee.png: equal to train/d.png",
        "warning: datasets.train: 1 pair of images that show the same photo",
        "  train/chelsea.png: shows 100% of train/e.png, where it is 0.50 times as large",
    ]


def test_jpeg_and_enlarged_images(root: Path, capsys: pytest.CaptureFixture) -> None:
    photo = cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR)
    (root / "train" / "astronaut.png").unlink()
    cv2.imwrite(str(root / "train" / "a.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, 80])
    grass = cv2.resize(skimage.data.grass(), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    write_image(root / "val" / "b.png", np.ascontiguousarray(grass[:, :, None].repeat(3, 2)))
    found = warnings(root, capsys)
    assert found == [
        "warning: datasets.train: 1 of 3 images are JPEG files (quality 80; 1 with 4:2:0)",
        "  train/a.jpg: quality 80, 4:2:0",
        "warning: datasets.val: 1 image without fine detail: enlarged, or blurred as if they were",
        "  val/b.png",
    ]


def test_headers_alone_warn_of_nothing(root: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copy(root / "train" / "coffee.png", root / "train" / "d.png")
    assert warnings(root, capsys, "--headers-only") == []


def test_problems_do_not_keep_warnings_away(root: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copy(root / "train" / "coffee.png", root / "train" / "d.png")
    (root / "train" / "bad.png").write_bytes(b"no image")
    assert main(["check", "-opt", str(root / "checked.yml")]) == 2
    printed = capsys.readouterr().out
    assert "1 pair of equal images" in printed and "bad.png" in printed


def test_long_lists_are_cut() -> None:
    text = Finding("many", [str(number) for number in range(25)]).text(shown=3)
    assert text == "warning: many\n  0\n  1\n  2\n  ... and 22 more"
    assert np.count_nonzero([line.startswith("  ") for line in text.splitlines()]) == 4
