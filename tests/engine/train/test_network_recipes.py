"""Each recipe of docs/networks.md from option file to checkpoint, test and restored photo, in small."""

import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

from mambair.commands import test as test_command
from mambair.commands import train as train_command
from mambair.imaging.files import write_image
from mambair.options import parse_test_options, parse_train_options
from mambair.weights.loading import load_network

ROOT = Path(__file__).resolve().parents[3]
NETWORK = ["network_g:embed_dim=16", "network_g:depths=[1]", "network_g:d_state=2", "num_gpu=0"]
TRAINING = [
    *NETWORK,
    "train:amp=none",
    "logger:use_tb_logger=false",
    "logger:print_freq=1",
    "logger:save_checkpoint_freq=2",
    "datasets:train:num_worker_per_gpu=0",
    "datasets:train:batch_size_per_gpu=2",
    "train:total_iter=2",
    "val:val_freq=2",
]
SETS = ("BSD400", "photos", "Set5", "Set14", "B100", "Urban100", "CBSD68", "Kodak24", "McMaster", "LIVE1")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two small photos in each data set that the recipes read."""
    monkeypatch.chdir(tmp_path)
    photo = np.ascontiguousarray(skimage.data.astronaut())
    for name in SETS:
        side = 120 if name in ("BSD400", "photos") else 32
        for number in range(2):
            part = photo[number * 90 : number * 90 + side, 150 : 150 + side + 1]
            write_image(tmp_path / "datasets" / name / "HR" / f"{number}.png", part)
    gray = np.ascontiguousarray(photo[:32, :40, :1])
    write_image(tmp_path / "datasets" / "classic5" / "HR" / "0.png", gray)
    write_image(tmp_path / "datasets" / "RealSRSet" / "LR" / "0.png", photo[:24, :20])
    return tmp_path


def train(name: str, *overrides: str) -> Path:
    recipe = ROOT / "options" / "train" / f"{name}.yml"
    options = parse_train_options(recipe)
    scale = options.scale
    if options.path.pretrain_network_g is not None and not overrides:  # its start, if no other is told
        overrides = (f"path:pretrain_network_g={train(options.path.pretrain_network_g.parts[1])}",)
    sizes = [f"datasets:train:gt_size={16 * scale}"]
    if name.startswith("photo"):
        sizes += [f"gt_size={16 * scale}", "queue_size=2"]
    assert train_command.main(["-opt", str(recipe), "--force_yml", *TRAINING, *sizes, *overrides]) == 0
    return Path("experiments") / name / "models" / "net_g_2.pth"


def run_test(name: str, weights: Path) -> dict:
    recipe = ROOT / "options" / "test" / f"{name}.yml"
    forced = [*NETWORK, f"path:pretrain_network_g={weights}"]
    assert test_command.main(["-opt", str(recipe), "--force_yml", *forced]) == 0
    assert parse_test_options(recipe).name == name
    return json.loads((Path("results") / name / "metrics.json").read_text(encoding="utf-8"))["datasets"]


@pytest.mark.parametrize("name", ["x2", "denoise", "jpeg", "photo_x1", "photo_x4"])
def test_a_recipe_trains_is_tested_and_restores(name: str, workspace: Path) -> None:
    weights = train(name)
    scores = run_test(name, weights)
    expected = parse_test_options(ROOT / "options" / "test" / f"{name}.yml").evaluation_datasets()
    assert set(scores) == set(expected)
    for label, score in scores.items():
        if label != "RealSRSet":
            assert np.isfinite(score["psnr"]) and 0 < score["ssim"] < 1
    network = load_network(weights)
    scale = parse_train_options(ROOT / "options" / "train" / f"{name}.yml").scale
    with torch.no_grad():
        assert network(torch.rand(1, 3, 20, 23)).shape == (1, 3, 20 * scale, 23 * scale)


@pytest.mark.parametrize("name", ["x3", "x4"])
def test_x3_and_x4_start_from_x2(name: str, workspace: Path) -> None:
    start = workspace / "x2.pth"
    train("x2").rename(start)
    weights = train(name, f"path:pretrain_network_g={start}", "train:optim_g:lr=0")
    (log,) = (workspace / "experiments" / name).glob("*.log")
    assert "2 weights of other shape start anew: upsample.0.weight, upsample.0.bias" in log.read_text(encoding="utf-8")
    x2, own = (torch.load(path, weights_only=True) for path in (start, weights))
    for key, value in x2["params_ema"].items():
        if not key.startswith("upsample."):
            assert torch.equal(own["params"][key], value), key
    assert set(run_test(name, weights)) == {"Set5", "Set14", "B100", "Urban100"}
