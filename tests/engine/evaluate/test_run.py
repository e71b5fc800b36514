"""Tests of networks: numbers, tables, files, several networks in one table."""

import json
from pathlib import Path

import numpy as np
import pytest

from mambair.commands.test import main
from mambair.imaging.files import read_image
from mambair.imaging.resize import imresize
from mambair.metrics import calculate_psnr, calculate_ssim
from tests.engine.tiny_run import test_options as make_options
from tests.engine.tiny_run import train, write_options

PHOTOS = ("astronaut", "coffee", "rocket")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with weights of the iterations 2 and 4."""
    root = tmp_path_factory.mktemp("trained")
    assert train(root, train__total_iter=4, val=None) == 0
    return root / "experiments" / "tiny" / "models"


def run(root: Path, weights: Path, **changes) -> dict:
    path = write_options(root, make_options(root, weights, **changes))
    assert main(["-opt", str(path)]) == 0
    return json.loads((root / "results" / "tiny_test" / "metrics.json").read_text(encoding="utf-8"))


def test_numbers_are_those_of_the_saved_images(trained: Path, tmp_path: Path) -> None:
    content = run(tmp_path, trained / "net_g_4.pth", val__save_img=True, val__suffix="restored")
    scores = content["datasets"]["held_out"]
    assert list(scores["images"]) == list(PHOTOS)
    for name, values in scores["images"].items():
        restored = read_image(tmp_path / f"results/tiny_test/visualization/held_out/{name}_restored.png")
        truth = read_image(tmp_path / f"held_out/HR/{name}.png")
        assert values["psnr"] == calculate_psnr(restored, truth, 2, test_y_channel=True)
        assert values["ssim"] == calculate_ssim(restored, truth, 2, test_y_channel=True)
    assert scores["psnr"] == sum(values["psnr"] for values in scores["images"].values()) / 3
    assert content["weights"].endswith("net_g_4.pth")
    assert content["protocol"]["tile"] == "published"
    assert content["options"]["network_g"]["embed_dim"] == 8


def test_bicubic_row(trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    content = run(tmp_path, trained / "net_g_4.pth")
    psnr = []
    for name in PHOTOS:
        enlarged = imresize(read_image(tmp_path / f"held_out/LR/{name}x2.png"), 2)
        psnr.append(calculate_psnr(enlarged, read_image(tmp_path / f"held_out/HR/{name}.png"), 2, test_y_channel=True))
    assert content["baseline"]["name"] == "Bicubic"
    assert content["baseline"]["datasets"]["held_out"]["psnr"] == pytest.approx(np.mean(psnr), rel=1e-12)
    table = (tmp_path / "results/tiny_test/metrics.md").read_text(encoding="utf-8")
    assert "|  | held_out PSNR | held_out SSIM |" in table
    assert f"| Bicubic | {np.mean(psnr):.2f} |" in table
    assert f"| tiny_test | {content['datasets']['held_out']['psnr']:.2f} |" in table
    assert "Y channel (BT.601), 2 pixels cropped" in table
    printed = capfd.readouterr().out
    assert f"{np.mean(psnr):.2f}" in printed
    assert "results/tiny_test/metrics.md" in printed.replace("\n", "")


def test_input_row_where_nothing_is_enlarged(trained: Path, tmp_path: Path) -> None:
    denoiser = {"upscale": 1, "upsampler": ""}
    assert (
        train(
            tmp_path,
            scale=1,
            datasets__train__type="SyntheticDataset",
            datasets__train__task="denoising_color",
            datasets__train__noise=25,
            datasets__train__dataroot_lq=None,
            network_g__upscale=1,
            network_g__upsampler="",
            train__total_iter=1,
            val=None,
        )
        == 0
    )
    options = make_options(tmp_path, tmp_path / "experiments/tiny/models/net_g_1.pth", scale=1)
    options["network_g"] |= denoiser
    section = {"type": "SyntheticDataset", "task": "denoising_color", "noise": 25, "name": "noisy"}
    section["dataroot_gt"] = options["datasets"]["test_1"]["dataroot_gt"]
    options["datasets"]["test_1"] = section
    assert main(["-opt", str(write_options(tmp_path, options))]) == 0
    content = json.loads((tmp_path / "results/tiny_test/metrics.json").read_text(encoding="utf-8"))
    assert content["baseline"]["name"] == "Input"
    # In luma, whose weights add up to 219/255 and average the channels' noise, sigma 25 is 14.4: 24.97 dB, and a
    # little more where clipping to [0, 255] takes some of it away.
    assert 24.8 < content["baseline"]["datasets"]["noisy"]["psnr"] < 27


@pytest.mark.parametrize("settings", [{"val__tile": "none"}, {"val__tile": 16}, {"val__self_ensemble": True}])
def test_settings_of_restoration_have_an_effect(trained: Path, tmp_path: Path, settings: dict) -> None:
    usual = run(tmp_path, trained / "net_g_4.pth")["datasets"]["held_out"]["psnr"]
    changed = run(tmp_path, trained / "net_g_4.pth", **settings)["datasets"]["held_out"]["psnr"]
    # One published tile is the whole of such small images.
    assert (usual == changed) == (settings == {"val__tile": "none"})


def test_images_without_ground_truth(trained: Path, tmp_path: Path) -> None:
    options = make_options(tmp_path, trained / "net_g_4.pth", val__save_img=True)
    lq = options["datasets"]["test_1"]["dataroot_lq"]
    options["datasets"]["test_1"] = {"name": "photos", "type": "SingleImageDataset", "dataroot_lq": lq}
    assert main(["-opt", str(write_options(tmp_path, options))]) == 0
    saved = sorted(path.name for path in (tmp_path / "results/tiny_test/visualization/photos").iterdir())
    assert saved == [f"{name}x2_tiny_test.png" for name in PHOTOS]
    content = json.loads((tmp_path / "results/tiny_test/metrics.json").read_text(encoding="utf-8"))
    assert content["datasets"]["photos"]["images"] == {f"{name}x2": {} for name in PHOTOS}


def test_second_test_archives_the_first(trained: Path, tmp_path: Path) -> None:
    for _ in range(2):
        run(tmp_path, trained / "net_g_4.pth")
    assert len(list((tmp_path / "results").glob("tiny_test_archived_*/metrics.json"))) == 1


def test_several_networks_stand_in_one_table(trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    first = write_options(tmp_path, make_options(tmp_path, trained / "net_g_4.pth"), "first.yml")
    second = write_options(tmp_path, make_options(tmp_path, trained / "net_g_2.pth", name="other"), "second.yml")
    assert main(["-opt", str(first), "--compare", str(second)]) == 0
    table = (tmp_path / "results/tiny_test/comparison.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("| ")}
    psnr = {
        name: json.loads((tmp_path / f"results/{name}/metrics.json").read_text())["datasets"]["held_out"]["psnr"]
        for name in ("tiny_test", "other")
    }
    better, worse = sorted(psnr, key=psnr.get, reverse=True)
    assert f"**{psnr[better]:.2f}**" in rows[better]
    assert f"<u>{psnr[worse]:.2f}</u>" in rows[worse]
    assert "*" not in rows["Bicubic"]
    assert "Comparison" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "'tiny_test' names several option files; rename one"),
        (
            {"name": "other", "val__metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4}}},
            "compared by the same metrics",
        ),
        ({"name": "other", "datasets__test_1__filename_tmpl": "{}x3"}, "is not made of the same images as in"),
    ],
)
def test_unlike_things_are_not_compared(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture, changes: dict, message: str
) -> None:
    first = write_options(tmp_path, make_options(tmp_path, trained / "net_g_4.pth"), "first.yml")
    second = write_options(tmp_path, make_options(tmp_path, trained / "net_g_2.pth", **changes), "second.yml")
    assert main(["-opt", str(first), "--compare", str(second)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_test_needs_weights(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write_options(tmp_path, make_options(tmp_path, Path("none"), path__pretrain_network_g=None))
    assert main(["-opt", str(path)]) == 2
    assert "path.pretrain_network_g: is missing; give the weights to test" in capsys.readouterr().err
