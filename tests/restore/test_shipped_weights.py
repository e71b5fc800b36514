"""Weights put into mambair/weights are small, get into what is installed, and are what `mambair restore` takes."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mambair.archs import build_network
from mambair.commands.weights import main as weights_main
from mambair.options import parse_train_options

ROOT = Path(__file__).resolve().parents[2]
NAME = "lightSR_x2_BSD400"
LIMIT = 4_000_000
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project with random weights of the light network, both kinds of them, converted for shipping."""
    folder = tmp_path / "checkout"
    no_weights = shutil.ignore_patterns("__pycache__", "weights")
    shutil.copytree(ROOT / "mambair", folder / "mambair", ignore=no_weights)
    shutil.copy(ROOT / "mambair" / "commands" / "weights.py", folder / "mambair" / "commands")
    for name in ("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    options = parse_train_options(ROOT / "options" / "train" / f"{NAME}.yml").network_g
    states = {}
    for seed, key in enumerate(("params", "params_ema")):
        torch.manual_seed(seed)
        states[key] = build_network(options).state_dict()
    torch.save(states, tmp_path / "net_g_60000.pth")
    target = folder / "mambair" / "weights" / f"{NAME}.safetensors"
    target.parent.mkdir()
    source = str(tmp_path / "net_g_60000.pth")
    assert weights_main(["convert", source, "-o", str(target), "--half", "--task", "sr"]) == 0
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


def test_an_installed_package_restores_with_its_own_weights(checkout: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    shipped = checkout / "mambair" / "weights" / f"{NAME}.safetensors"
    assert shipped.stat().st_size < LIMIT
    averaged = torch.load(tmp_path / "net_g_60000.pth", weights_only=True)["params_ema"]
    assert all(torch.equal(value, averaged[key].half()) for key, value in load_file(shipped).items())

    run(["-c", BUILD, str(tmp_path / "dist")], checkout)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    Image.fromarray(np.full((8, 12, 3), 90, np.uint8)).save(tmp_path / "photo.png")
    installed = {"PYTHONPATH": str(tmp_path / "installed"), "MAMBAIR_SCAN_BACKEND": "reference"}  # nothing to compile
    printed = run(["-m", "mambair", "restore", "photo.png", "-o", "restored"], tmp_path, **installed)
    # A long path is broken over two lines.
    assert str(tmp_path / "installed" / "mambair" / "weights" / shipped.name) in printed.replace("\n", "")
    assert Image.open(tmp_path / "restored" / "photo.png").size == (24, 16)
