"""`mambair analyze`: tables, figures with their numbers, warnings, wrong arguments."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mambair.archs import build_network
from mambair.commands.analyze import main

TINY = {
    "type": "MambaIR",
    "upscale": 2,
    "embed_dim": 12,
    "depths": [1],
    "d_state": 4,
    "mlp_ratio": 1.5,
    "upsampler": "pixelshuffledirect",
}
QUICK = ("--count", "2", "--size", "16", "--device", "cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.manual_seed(0)
    state = build_network(TINY).state_dict()
    torch.save({"params": state}, path.with_name("untrained.pth"))
    for key in state:
        if key.endswith("Ds"):
            state[key] += 0.1  # as training leaves them: not at their initial values
    torch.save({"params": state}, path)
    return path


@pytest.fixture
def options(tmp_path: Path) -> Path:
    path = tmp_path / "tiny_random.yml"
    path.write_text("name: tiny\nnetwork_g: " + json.dumps(TINY))
    return path


def test_complexity_without_a_network_prints_both_light_networks(capsys) -> None:
    assert main(["complexity"]) == 0
    printed = capsys.readouterr().out
    for figure in ("859K", "198.1G", "867K", "88.7G", "879K", "50.6G", "1,363,320", "905,016", "640x360", "9*B*L*D*N"):
        assert figure in printed


def test_complexity_of_given_networks_and_the_plot(weights, options, tmp_path, capsys, monkeypatch) -> None:
    pytest.importorskip("matplotlib", reason="the extra [plots] is not installed")
    monkeypatch.setattr("mambair.commands.analyze.SCALING_SIDES", (8, 16))
    plot = tmp_path / "cost.png"
    arguments = ["--weights", str(weights), "-opt", str(options), "--output-size", "64x32", "--plot", str(plot)]
    assert main(["complexity", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "tiny_random" in printed and "32x16" in printed and "859K" not in printed
    with Image.open(plot) as image:
        assert image.size[0] > 300


@pytest.mark.parametrize("kind", ["erf", "activation"])
def test_figures_and_numbers(kind: str, weights: Path, options: Path, tmp_path: Path, capsys) -> None:
    pytest.importorskip("matplotlib", reason="the extra [plots] is not installed")
    figure = tmp_path / "out" / f"{kind}.png"
    arguments = ["--weights", str(weights), "-opt", str(options), "-o", str(figure), *QUICK]
    assert main([kind, *arguments]) == 0
    printed = capsys.readouterr().out
    assert "tiny_random: these are random weights" in printed and "tiny: these" not in printed
    numbers = json.loads(figure.with_suffix(".json").read_text())
    assert set(numbers) == {"tiny", "tiny_random"}
    if kind == "erf":
        assert numbers["tiny"]["support"] == [16, 16]  # a global receptive field
        sides = [square["side"] for square in numbers["tiny"]["squares"]]
        assert sides == sorted(sides)
    else:
        assert numbers["tiny"]["channels"] == 12
    with Image.open(figure) as image:
        assert len(np.unique(np.asarray(image))) > 10


def test_a_file_of_untrained_weights_is_noticed(weights: Path, capsys) -> None:
    assert main(["erf", "--weights", str(weights.with_name("untrained.pth")), str(weights), *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "untrained: these are random weights" in printed and "tiny: these" not in printed


def test_other_architectures_are_measured_through_spandrel(tmp_path: Path, capsys) -> None:
    pytest.importorskip("spandrel", reason="the extra [spandrel] is not installed")
    from spandrel.architectures.SwinIR import SwinIR

    torch.manual_seed(0)
    network = SwinIR(
        img_size=16, window_size=8, depths=[2], embed_dim=12, num_heads=[2], upscale=2, upsampler="pixelshuffledirect"
    )
    torch.save({"params": network.state_dict()}, tmp_path / "swin.pth")
    assert main(["erf", "--weights", str(tmp_path / "swin.pth"), *QUICK]) == 0
    assert "swin" in capsys.readouterr().out
    assert main(["complexity", "--weights", str(tmp_path / "swin.pth")]) == 0
    assert main(["activation", "--weights", str(tmp_path / "swin.pth"), *QUICK]) == 2
    assert "no state-space module" in capsys.readouterr().err


def test_crops_come_from_the_folder_given(weights: Path, tmp_path: Path, capsys) -> None:
    Image.fromarray(np.full((20, 24, 3), 99, np.uint8)).save(tmp_path / "a.png")
    assert main(["erf", "--weights", str(weights), "--images", str(tmp_path), *QUICK]) == 0
    assert main(["erf", "--weights", str(weights), "--images", str(tmp_path), "--size", "40", "--device", "cpu"]) == 2
    assert "24x20" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["erf"], "--weights"),
        (["erf", "--weights", "gone.pth"], "gone.pth"),
        (["activation", "-opt", "gone.yml"], "gone.yml"),
        (["complexity", "-opt", "{no_network}"], "network_g"),
        (["erf", "--weights", "{weights}", "-o", "figure.bmp", *QUICK], "figure.bmp"),
        (["erf", "--weights", "{weights}", "--images", "{empty}", *QUICK], "no images"),
    ],
)
def test_wrong_arguments(arguments, message, weights: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.yml").write_text("name: nothing")
    places = {"weights": weights, "empty": tmp_path / "empty", "no_network": tmp_path / "no.yml"}
    assert main([argument.format(**places) for argument in arguments]) == 2
    assert message in capsys.readouterr().err
