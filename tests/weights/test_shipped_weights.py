"""The weights in the package: what they are, that they get into what is installed, and that they are worth it."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from safetensors.torch import load_file

from mambair import load_model
from mambair.commands.demo import offered_weights
from mambair.commands.restore.command import main as restore_main
from mambair.commands.weights import main as weights_main
from mambair.data import builders  # noqa: F401 (registers the degradations)
from mambair.errors import UserError
from mambair.imaging.files import read_image, write_image
from mambair.imaging.pixels import to_uint8
from mambair.imaging.resize import imresize
from mambair.metrics import calculate_psnr
from mambair.options import parse_train_options
from mambair.registry import DEGRADATIONS
from mambair.weights.sources import find_weights, read_purpose, read_scale, served_by, shipped_weights
from mambair.weights.tasks import TASKS, Level

ROOT = Path(__file__).resolve().parents[2]
NAME = "x2"
SCALE = 2
NETWORKS = {  # what each states: task, level, scale; and its parameters
    "x2": ("sr", None, 2, 905_016),
    "x3": ("sr", None, 3, 913_131),
    "x4": ("sr", None, 4, 924_492),
    "denoise": ("denoise", Level(0, 55), 1, 900_147),
    "jpeg": ("jpeg", Level(10, 95), 1, 900_147),
    "photo_x1": ("photo", None, 1, 900_147),
    "photo_x4": ("photo", None, 4, 924_492),
}
LIMIT = 14_000_000
"""Bytes of all of them."""
# dB; on the crops below, 4.7 and 5.6 were measured.
GAIN = 1.5
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


@pytest.fixture
def shipped() -> Path:
    """The file in the package."""
    with resources.as_file(resources.files("mambair").joinpath("weights", "shipped", f"{NAME}.safetensors")) as path:
        return path


def test_there_is_one_for_each_task() -> None:
    assert list(shipped_weights()) == list(NETWORKS), "in the order in which lists show them"
    assert sum(path.stat().st_size for path in shipped_weights().values()) < LIMIT
    for task in TASKS:
        assert served_by(task) is not None


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_says_what_it_is(name: str) -> None:
    path = shipped_weights()[name]
    kind, level, scale, parameters = NETWORKS[name]
    assert read_purpose(path) == (kind, level) and read_scale(path) == scale
    state = load_file(path)
    assert sum(value.numel() for value in state.values()) == parameters
    assert all(value.dtype == torch.float16 and value.isfinite().all() for value in state.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_what_its_recipe_trains(name: str) -> None:
    network = load_model(name, device="cpu").network
    recipe = parse_train_options(ROOT / "options" / "train" / f"{name}.yml").network_g
    assert {key: value for key, value in recipe.items() if key != "type"}.items() <= network.hyperparameters.items()


def test_it_is_taken_where_none_is_named(shipped: Path, own_cache: Path, capsys: pytest.CaptureFixture) -> None:
    (own_cache / "lightSR_x2.pth").touch()
    assert find_weights(None) == find_weights(None, task="sr") == find_weights(NAME) == shipped
    assert offered_weights([])[0] == str(shipped)
    assert weights_main(["list"]) == 0
    assert NAME in capsys.readouterr().out


def test_it_is_not_taken_for_what_it_cannot(shipped: Path) -> None:
    with pytest.raises(UserError, match="no noise level"):
        load_model(noise=25)
    with pytest.raises(UserError, match="x2 super-resolution"):
        load_model(NAME, task="jpeg")
    with pytest.raises(UserError, match="has a better one for this: x2"):
        load_model("lightSR_x2_BSD400")


@pytest.mark.parametrize(("name", "top", "left"), [("coffee", 100, 300), ("astronaut", 100, 200)])
def test_restoring_without_weights_beats_bicubic(name: str, top: int, left: int, tmp_path: Path) -> None:
    truth = np.ascontiguousarray(getattr(skimage.data, name)()[top : top + 128, left : left + 128])
    small = imresize(truth, 1 / SCALE)
    write_image(tmp_path / "photo.png", small)
    assert restore_main([str(tmp_path / "photo.png"), "-o", str(tmp_path / "restored"), "--device", "cpu"]) == 0
    restored = read_image(tmp_path / "restored" / "photo.png")
    bicubic, ours = (
        calculate_psnr(image, truth, SCALE, test_y_channel=True) for image in (imresize(small, SCALE), restored)
    )
    assert ours > bicubic + GAIN


@pytest.mark.parametrize(
    ("name", "block", "gain"),  # dB over the photo as spoilt, or enlarged by bicubic; half as much again was measured
    [
        ("x3", None, 3.0),
        ("x4", None, 3.5),
        ("denoise", {"type": "GaussianNoise", "sigma": 15}, 8.0),
        ("denoise", {"type": "GaussianNoise", "sigma": 50}, 11.0),
        ("jpeg", {"type": "JpegArtifacts", "quality": 10}, 2.5),
        ("jpeg", {"type": "JpegArtifacts", "quality": 40}, 2.5),
        ("photo_x1", {"type": "SecondOrder", "strength": "moderate", "seed": 0}, 2.5),
        ("photo_x4", {"type": "SecondOrder", "strength": "moderate", "seed": 0, "scale": 4}, 1.3),
    ],
)
def test_each_does_what_it_is_for(name: str, block: dict[str, Any] | None, gain: float) -> None:
    truth = np.ascontiguousarray(skimage.data.coffee()[100:196, 300:396])
    model = load_model(name, device="cpu")
    if block is None:
        spoilt = imresize(truth, 1 / model.scale)
    else:
        spoilt = to_uint8(DEGRADATIONS.build(block, where="made")(truth, np.random.RandomState(0)))
    before = imresize(spoilt, model.scale) if model.scale > 1 else spoilt
    after = model.restore(spoilt)
    assert calculate_psnr(after, truth, 4) > calculate_psnr(before, truth, 4) + gain


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what a wheel is built from."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "mambair", folder / "mambair", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def run(code: list[str], cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *code],
        cwd=cwd,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_an_installed_package_restores_with_it(checkout: Path, shipped: Path, tmp_path: Path) -> None:
    run(["-c", BUILD, str(tmp_path / "dist")], checkout)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    installed = tmp_path / "installed" / "mambair" / "weights" / "shipped" / shipped.name
    assert installed.read_bytes() == shipped.read_bytes()
    assert (installed.parent / "measured.json").is_file()
    package = [path.relative_to(ROOT) for path in (ROOT / "mambair").rglob("*") if path.is_file()]
    needed = [path for path in package if path.suffix not in (".pyc", ".nbi", ".nbc")]  # what Python and Numba cache
    assert len(needed) > 100
    assert [str(path) for path in needed if not (tmp_path / "installed" / path).is_file()] == []
    Image.fromarray(np.full((8, 12, 3), 90, np.uint8)).save(tmp_path / "photo.png")
    # The reference has nothing to compile.
    environment = {"PYTHONPATH": str(tmp_path / "installed"), "MAMBAIR_SCAN_BACKEND": "reference"}
    printed = run(["-m", "mambair", "restore", "photo.png", "-o", "restored"], tmp_path, **environment)
    assert str(installed) in "".join(printed.split())  # a long path is broken over two lines
    assert Image.open(tmp_path / "restored" / "photo.png").size == (24, 16)
