"""Images that cannot be judged, or not be read: left out of the means, named, and the rest stands."""

import json
from pathlib import Path

import numpy as np
import pytest

from mambair.commands import test as test_command
from mambair.commands.data import main as data_main
from mambair.commands.train import main as train_main
from mambair.imaging.files import write_image
from tests.engine.tiny_run import test_options, train, train_options, write_options


def add_image(folder: Path, name: str, side: int) -> None:
    """A pair at scale 2 whose ground truth is `side` pixels wide."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    write_image(folder / "HR" / f"{name}.png", pixels)
    write_image(folder / "LR" / f"{name}x2.png", pixels[::2, ::2])


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    root = tmp_path / "run"
    root.mkdir()
    assert train(root, train__total_iter=1, val=None) == 0
    return root / "experiments" / "tiny" / "models" / "net_g_latest.pth"


def test_a_test_names_what_a_metric_cannot_judge(tmp_path: Path, weights: Path, capsys) -> None:
    options = write_options(tmp_path, test_options(tmp_path, weights))
    assert test_command.main(["-opt", str(options)]) == 0
    usual = json.loads((tmp_path / "results/tiny_test/metrics.json").read_text())["datasets"]["held_out"]
    assert "left_out" not in usual
    add_image(tmp_path / "held_out", "little", 12)
    capsys.readouterr()
    assert test_command.main(["-opt", str(options)]) == 0
    found = json.loads((tmp_path / "results/tiny_test/metrics.json").read_text())["datasets"]["held_out"]
    assert found["ssim"] == usual["ssim"] and found["psnr"] != usual["psnr"]
    assert found["images"]["little"].keys() == {"psnr"}
    note = "held_out: little is left out of the mean: ssim: SSIM needs at least 11x11 pixels"
    assert found["left_out"]["little"].startswith("ssim: SSIM needs at least 11x11 pixels, got (8, 8) after cropping 2")
    assert note in " ".join(capsys.readouterr().out.split())
    assert note in (tmp_path / "results/tiny_test/metrics.md").read_text()


def test_a_test_goes_on_without_what_cannot_be_read(tmp_path: Path, weights: Path, capsys) -> None:
    options = write_options(tmp_path, test_options(tmp_path, weights))
    broken = tmp_path / "held_out" / "LR" / "rocketx2.png"
    data = bytearray(broken.read_bytes())
    data[len(data) // 2] ^= 1  # which its header does not show
    broken.write_bytes(bytes(data))
    assert test_command.main(["-opt", str(options)]) == 1
    found = json.loads((tmp_path / "results/tiny_test/metrics.json").read_text())["datasets"]["held_out"]
    assert found["images"].keys() == {"coffee", "astronaut"} and "psnr" in found
    assert "rocketx2.png" in found["left_out"]["rocket"]
    assert "rocket is left out of the mean" in " ".join(capsys.readouterr().out.split())


def test_a_run_validates_with_what_there_is_and_a_check_tells_before(tmp_path: Path, capsys) -> None:
    options = write_options(tmp_path, train_options(tmp_path))
    assert data_main(["check", "-opt", str(options), "--headers-only"]) == 0
    add_image(tmp_path / "held_out", "little", 12)
    capsys.readouterr()
    assert data_main(["check", "-opt", str(options), "--headers-only"]) == 2
    told = "little.png: 12x12 pixels are too few for ssim, which needs 15 with its borders: it is left out of the mean"
    assert told in " ".join(capsys.readouterr().out.split())
    assert train_main(["-opt", str(options)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "validation at 3 on held_out: psnr " in printed and "validation at 6 on held_out: psnr " in printed
    assert "; averaged weights" in printed
    assert printed.count("held_out: little is left out of the mean: ssim: ") == 1
    assert (tmp_path / "experiments/tiny/models/net_g_best.pth").is_file()


def test_images_of_one_name_from_two_sets_are_all_saved(tmp_path: Path) -> None:
    options = train_options(tmp_path, train__total_iter=1, val__val_freq=1, val__save_img=True)
    options["datasets"]["val_2"] = {**options["datasets"]["val"], "name": "again"}
    assert train_main(["-opt", str(write_options(tmp_path, options))]) == 0
    saved = (tmp_path / "experiments/tiny/visualization").rglob("*.png")
    names = ("rocket", "coffee", "astronaut")
    expected = {f"{data_set}/{name}/{name}_1.png" for data_set in ("held_out", "again") for name in names}
    assert {str(path.relative_to(tmp_path / "experiments/tiny/visualization")) for path in saved} == expected
