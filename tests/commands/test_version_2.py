"""What commands do with MambaIR, they do with MambaIRv2: restore, convert, test, analyze, fine-tune, and the page."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mambair.archs import build_network
from mambair.commands.analyze import main as analyze
from mambair.commands.demo import cached_model, offered_weights, restore_file
from mambair.commands.finetune.command import main as finetune
from mambair.commands.restore.command import main as restore
from mambair.commands.test import main as evaluate
from mambair.commands.weights import main as weights
from mambair.runtime.log_setup import console
from mambair.weights.loading import load_network
from tests.commands.finetune.test_finetune import write_photos
from tests.engine.tiny_run import test_options as make_test_options
from tests.engine.tiny_run import write_options

SIZES = {
    "embed_dim": 8, "depths": [2], "num_heads": [2], "d_state": 2, "window_size": 8, "inner_rank": 2, "num_tokens": 4,
    "convffn_kernel_size": 3, "mlp_ratio": 1.0,
}  # fmt: skip
NETWORKS = {
    "light": {"type": "MambaIRv2Light", "upscale": 2, "upsampler": "pixelshuffledirect"},
    "classic": {"type": "MambaIRv2", "upscale": 3, "upsampler": "pixelshuffle"},
    "denoise": {"type": "MambaIRv2"},
    "gray": {"type": "MambaIRv2", "in_chans": 1},
    "real": {"type": "MambaIRv2", "upscale": 4, "upsampler": "nearest+conv"},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights as the authors publish them, of each task, with one of the scan's values as training leaves it."""
    folder = tmp_path_factory.mktemp("v2")
    found = {}
    for name, options in NETWORKS.items():
        torch.manual_seed(0)
        network = build_network(SIZES | options)
        with torch.no_grad():
            network.layers[0].residual_group.layers[0].assm.selectiveScan.Ds.add_(0.1)
        found[name] = folder / f"{name}.pth"
        torch.save({"params": network.state_dict()}, found[name])
    return found


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 45, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_restore(name: str, files: dict, photo: Path, tmp_path: Path) -> None:
    common = [str(photo), "--weights", str(files[name]), "--device", "cpu", "--amp", "none"]
    scale = NETWORKS[name].get("upscale", 1)
    results = []
    for label, more in (("whole", []), ("tiles", ["--tile", "16"]), ("ensemble", ["--ensemble"])):
        twice = [tmp_path / f"{label}{time}" for time in (1, 2)]
        for folder in twice:
            assert restore([*common, "-o", str(folder), *more]) == 0
        first, second = (np.asarray(Image.open(folder / "photo.png")) for folder in twice)
        assert first.shape == (37 * scale, 45 * scale, 3)
        assert np.array_equal(first, second)  # tokens are not drawn
        results.append(first)
    assert not np.array_equal(results[0], results[1]) and not np.array_equal(results[0], results[2])


def test_convert_keeps_network_and_numbers(files: dict, tmp_path: Path) -> None:
    target = tmp_path / "light.safetensors"
    assert weights(["convert", str(files["light"]), "-o", str(target)]) == 0
    first, second = load_network(files["light"]), load_network(target)
    assert first.hyperparameters == second.hyperparameters
    for (key, value), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(value, other), key


def test_test_and_the_weights_of_another_version(
    files: dict, tmp_path: Path, x2_weights: Path, capsys: pytest.CaptureFixture
) -> None:
    network = SIZES | NETWORKS["light"]
    path = write_options(tmp_path, make_test_options(tmp_path, files["light"], network_g=network))
    assert evaluate(["-opt", str(path)]) == 0
    scores = json.loads((tmp_path / "results/tiny_test/metrics.json").read_text())["datasets"]["held_out"]
    assert set(scores["images"]) == {"rocket", "coffee", "astronaut"}
    capsys.readouterr()
    path = write_options(tmp_path, make_test_options(tmp_path, x2_weights, network_g=network))
    assert evaluate(["-opt", str(path)]) == 2
    assert "set network_g.type: MambaIR," in capsys.readouterr().err


def test_analyze(files: dict, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 400)
    chosen = ["--weights", str(files["light"]), str(files["gray"])]
    assert analyze(["complexity", *chosen, "--output-size", "64x32"]) == 0
    count = sum(parameter.numel() for parameter in load_network(files["gray"]).parameters())
    assert f"{count:,}" in capsys.readouterr().out
    quick = ["--count", "1", "--size", "16", "--device", "cpu"]
    for kind in ("erf", "activation"):
        figure = tmp_path / f"{kind}.png"
        assert analyze([kind, *chosen, *quick, "-o", str(figure)]) == 0
        printed = capsys.readouterr().out
        assert "light" in printed and "gray" in printed and "random weights" not in printed
        assert figure.exists() and json.loads(figure.with_suffix(".json").read_text())


def test_the_page(files: dict, photo: Path, tmp_path: Path) -> None:
    assert str(files["light"]) in offered_weights([str(files["light"])])
    before, after, target, done = restore_file(
        str(photo), cached_model(str(files["light"]), "cpu", False), tmp_path / "out"
    )
    assert before.size == after.size == Image.open(target).size == (90, 74)
    assert done.startswith("45 x 37 to 90 x 74 pixels")


def test_finetune(files: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos")
    arguments = ["photos", "--weights", str(files["light"]), "-o", "out", "--device", "cpu", "--iterations", "30"]
    assert finetune(arguments) == 0
    assert "gain: +" in capsys.readouterr().out
    assert type(load_network("out/weights.safetensors")).__name__ == "MambaIRv2Light"
