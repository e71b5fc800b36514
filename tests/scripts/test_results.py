"""scripts/results.py on tiny runs: crops."""

import importlib.util
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from mambair.archs import build_network
from mambair.imaging.files import read_image
from tests.commands.documented import commands
from tests.engine.tiny_run import NETWORK, train

ROOT = Path(__file__).resolve().parents[2]

specification = importlib.util.spec_from_file_location("results", ROOT / "scripts" / "results.py")
results = importlib.util.module_from_spec(specification)
specification.loader.exec_module(results)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """experiments/ with the run `tiny` of 6 iterations and `wide` of 4."""
    root = tmp_path_factory.mktemp("runs")
    schedule = {"val__val_freq": 2, "logger__print_freq": 1}
    assert train(root, **schedule) == 0
    assert train(root, **schedule, name="wide", train__total_iter=4, network_g=NETWORK | {"embed_dim": 12}) == 0
    return root / "experiments"


def test_what_does_not_fit_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert results.main(["crops", "a.png", "--weights", "a.pth", "--figure", str(tmp_path / "a.png")]) == 2
    assert "NAME=FILE" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_crops_of_two_kinds_of_networks(runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("spandrel")
    swinir = {"img_size": 16, "window_size": 8, "depths": [2], "embed_dim": 12, "num_heads": [2]}
    network = build_network({"type": "SwinIR", "upscale": 2, "upsampler": "pixelshuffledirect", **swinir})
    torch.save({"params": network.state_dict()}, tmp_path / "swinir.pth")
    photos = [str(runs.parent / "held_out" / "HR" / f"{name}.png") for name in ("rocket", "coffee")]
    weights = [f"MambaIR={runs / 'tiny' / 'models' / 'net_g_6.pth'}", f"SwinIR={tmp_path / 'swinir.pth'}"]
    figure = tmp_path / "crops.png"
    arguments = ["crops", *photos, "--weights", *weights, "--figure", str(figure), "--device", "cpu"]
    assert results.main([*arguments, "--crop", "24", "--zoom", "2"]) == 0
    picture = read_image(figure)
    side, margin, caption = 48, 8, 22
    assert picture.shape == (2 * (side + caption + margin), 4 * (side + margin) + margin, 3)
    # The last panel is the ground truth, pixels repeated.
    truth = read_image(photos[0])
    panel = picture[margin : margin + side, -side - margin : -margin][::2, ::2]
    windows = np.lib.stride_tricks.sliding_window_view(truth, (24, 24, 3))[:, :, 0]
    assert (windows == panel).all(axis=(2, 3, 4)).any()
    # A caption below each panel.
    captions = picture[margin + side : margin + side + caption]
    assert all((captions[:, left : left + side] < 128).any() for left in range(margin, picture.shape[1], side + margin))
    assert results.main(arguments) == 2  # crops of 96 pixels out of photos of 48


@pytest.mark.parametrize("page", ["tasks.md"])
def test_documented_commands_are_understood(page: str) -> None:
    found = [shlex.split(command) for command in commands(ROOT / "docs" / page) if "scripts/results.py" in command]
    assert found
    for _, script, *arguments in found:
        assert script == "scripts/results.py" and results.build_parser().parse_args(arguments).action == arguments[0]
