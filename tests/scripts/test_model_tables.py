"""scripts/model_tables.py: tables of one test and of several seeds, and what is noted beside the weights."""

import importlib.util
import json
import shutil
import statistics
from pathlib import Path

import pytest

from mambair.weights.measured import measured
from mambair.weights.sources import SHIPPED_FOLDER, shipped_weights

ROOT = Path(__file__).resolve().parents[2]

specification = importlib.util.spec_from_file_location("model_tables", ROOT / "scripts" / "model_tables.py")
model_tables = importlib.util.module_from_spec(specification)
specification.loader.exec_module(model_tables)

NAME = "x2"
PROTOCOL = {"metrics": {"psnr": {"crop_border": 2, "test_y_channel": True}}, "tile": "none"}


def write(folder: Path, psnr: float, weights: str = NAME, **changes) -> Path:
    """metrics.json as a test writes it: Set5 with scores, real photos without."""
    images = {"baby": {"psnr": psnr, "ssim": 0.9}}
    content = {
        "datasets": {"Set5": {"psnr": psnr, "ssim": 0.95, "images": images}, "RealSRSet": {"images": {"a": {}}}},
        "baseline": {"name": "Bicubic", "datasets": {"Set5": {"psnr": 33.666, "ssim": 0.93, "images": {}}}},
        "weights": weights,
        "protocol": PROTOCOL,
    }
    folder.mkdir(exist_ok=True)
    path = folder / "metrics.json"
    path.write_text(json.dumps(content | changes), encoding="utf-8")
    return path


def test_a_table_of_one_test(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert model_tables.main(["table", str(write(tmp_path / "a", 37.535))]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "|  | Bicubic PSNR | Bicubic SSIM | PSNR | SSIM |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| Set5 | 33.67 | 0.9300 | 37.53 | 0.9500 |",
    ]


def test_mean_and_spread_of_three_seeds(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    values = [37.5, 37.54, 37.61]
    files = [str(write(tmp_path / str(seed), value, f"x2_{seed}.pth")) for seed, value in enumerate(values)]
    assert model_tables.main(["table", *files]) == 0
    printed = capsys.readouterr().out
    mean, spread = statistics.mean(values), statistics.stdev(values)
    assert f"| Set5 | 33.67 | 0.9300 | {mean:.2f} ± {spread:.2f} | 0.9500 ± 0.0000 |" in printed
    assert "standard deviation of 3 seeds" in printed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": {"tile": "published"}}, "has another protocol than"),
        ({"datasets": {"Set14": {"psnr": 1.0, "images": {}}}}, "has other data sets or images than"),
        ({"weights": "x2_0.pth"}, "several files are of the same weights (x2_0.pth)"),
        ({}, "is no metrics.json"),
    ],
)
def test_tests_that_do_not_go_together(
    changes: dict, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    first = write(tmp_path / "a", 37.5, "x2_0.pth")
    second = write(tmp_path / "b", 37.6, **({"weights": "x2_1.pth"} | changes))
    if "no metrics.json" in message:
        second.write_text("{}", encoding="utf-8")
    assert model_tables.main(["table", str(first), str(second)]) == 2
    assert message in capsys.readouterr().err


def test_what_is_recorded_is_what_lists_show(tmp_path: Path, nothing_shipped: Path) -> None:
    shutil.copytree(SHIPPED_FOLDER, nothing_shipped)
    shutil.copy(nothing_shipped / f"{NAME}.safetensors", nothing_shipped / "mine.safetensors")
    before = measured()
    assert (
        model_tables.main(["record", "mine", str(write(tmp_path / "a", 37.53123, "mine")), "--note", "on paper"]) == 0
    )
    after = measured()
    mine = after.pop("mine")
    assert after == before
    assert mine.scores == {"Set5": {"psnr": 37.53123, "ssim": 0.95}} and mine.note == "on paper"
    assert mine.protocol == "Y channel, 2 pixels cropped at each border, images whole"
    assert mine.summary() == "Set5 37.53/0.9500"
    path = shipped_weights()["mine"]
    assert model_tables.main(["record", "mine", str(write(tmp_path / "b", 37.6, str(path)))]) == 0
    assert measured()["mine"].summary() == "Set5 37.60/0.9500"


def test_only_the_file_in_the_package_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    checkpoint = write(tmp_path / "a", 37.5, "experiments/x2/models/net_g_15000.pth")
    assert model_tables.main(["record", NAME, str(checkpoint)]) == 2
    assert f"test the file in the package: --weights {NAME}" in capsys.readouterr().err
    assert model_tables.main(["record", "x9", str(checkpoint)]) == 2
    assert "x9: is not in the package" in capsys.readouterr().err
