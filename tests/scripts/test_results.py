"""scripts/results.py on tiny runs: figure, tables and crops."""

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


def test_curves_and_tables(runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure, table = tmp_path / "docs" / "curves.png", tmp_path / "docs" / "table.md"
    arguments = ["curves", str(runs / "tiny"), f"wide one={runs / 'wide'}", "--figure", str(figure)]
    assert results.main([*arguments, "--table", str(table), "--reference", "bicubic=33.67"]) == 0
    assert read_image(figure).std() > 10
    text = table.read_text(encoding="utf-8")
    pace, equal_iterations, equal_time = (
        [row.split(" | ") for row in part.splitlines() if row.startswith("| ") and "---" not in row]
        for part in text.split("At equal")
    )
    assert [row[0] for row in pace[1:]] == ["| tiny", "| wide one"] and float(pace[1][5]) > 0
    assert equal_iterations[0][1:] == ["iterations", "hours", "held_out PSNR", "held_out SSIM |"]
    assert [row[1] for row in equal_iterations[1:]] == ["4", "4"]
    tiny, wide = (results.read_run(runs / name) for name in ("tiny", "wide"))
    assert equal_iterations[1][3] == f"{tiny.validations['held_out'][4]['psnr']:.2f}"
    assert equal_iterations[2][3] == f"{wide.validations['held_out'][4]['psnr']:.2f}"
    seconds = min(tiny.device_seconds(6), wide.device_seconds(4))
    expected = [run.last_within(seconds) for run in (tiny, wide)]
    assert [row[1] for row in equal_time[1:]] == ["-" if each is None else str(each) for each in expected]


def test_what_does_not_fit_is_one_line(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = ["--figure", str(tmp_path / "a.png"), "--table", str(tmp_path / "a.md")]
    assert results.main(["curves", str(runs / "tiny"), *output, "--reference", "bicubic"]) == 2
    assert "--reference bicubic: write NAME=VALUE" in capsys.readouterr().err
    assert results.main(["curves", str(runs / "tiny"), *output, "--reference", "bicubic=high"]) == 2
    assert "--reference bicubic=high: write NAME=VALUE" in capsys.readouterr().err
    assert results.main(["curves", str(runs / "tiny"), *output, "--reference", "a=1", "--reference", "a=2"]) == 2
    assert "--reference a=2: the name a is given twice" in capsys.readouterr().err
    assert results.main(["curves", str(tmp_path), *output]) == 2
    assert results.main(["curves", str(runs / "tiny"), *output, "--dataset", "Set9"]) == 2
    assert results.main(["crops", "a.png", "--weights", "a.pth", "--figure", str(tmp_path / "a.png")]) == 2
    errors = capsys.readouterr().err
    assert "experiments/<name>" in errors and "there are: held_out" in errors and "NAME=FILE" in errors
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


@pytest.mark.parametrize("page", ["tasks.md", "model_card.md"])
def test_documented_commands_are_understood(page: str) -> None:
    found = [shlex.split(command) for command in commands(ROOT / "docs" / page) if "scripts/results.py" in command]
    assert found
    for _, script, *arguments in found:
        assert script == "scripts/results.py" and results.build_parser().parse_args(arguments).action == arguments[0]
