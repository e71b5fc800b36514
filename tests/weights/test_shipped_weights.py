"""The weights in the package: what they are, that they get into what is installed, and that they are worth it."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path

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
from mambair.errors import UserError
from mambair.imaging.files import read_image, write_image
from mambair.imaging.resize import imresize
from mambair.metrics import calculate_psnr
from mambair.options import parse_train_options
from mambair.weights.sources import find_weights, read_purpose, read_scale, shipped_weights

ROOT = Path(__file__).resolve().parents[2]
NAME = "lightSR_x2_BSD400"
PARAMETERS = 905_016
LIMIT = 4_000_000
SCALE = 2
# dB; on the crops below, 4.7 and 5.6 were measured.
GAIN = 1.5
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


@pytest.fixture
def shipped() -> Path:
    """The file in the package."""
    with resources.as_file(resources.files("mambair").joinpath("weights", "shipped", f"{NAME}.safetensors")) as path:
        return path


def test_the_file_says_what_it_is(shipped: Path) -> None:
    assert shipped_weights()[NAME] == shipped
    assert shipped.stat().st_size < LIMIT
    assert read_purpose(shipped) == ("sr", None) and read_scale(shipped) == SCALE
    state = load_file(shipped)
    assert sum(value.numel() for value in state.values()) == PARAMETERS
    assert all(value.dtype == torch.float16 and value.isfinite().all() for value in state.values())


def test_it_is_what_its_recipe_trains(shipped: Path) -> None:
    network = load_model(shipped, device="cpu").network
    recipe = parse_train_options(ROOT / "options" / "train" / f"{NAME}.yml").network_g
    assert {key: value for key, value in recipe.items() if key != "type"}.items() <= network.hyperparameters.items()
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS


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
    with pytest.raises(UserError, match=f"did you mean '{NAME}'"):
        load_model("lightSR_x2_BSD")


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
