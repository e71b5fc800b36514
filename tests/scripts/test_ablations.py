"""The ablations of the paper's Tables 1 and 2: what sets the option files apart, and a run of all of them."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import yaml

from mambair.archs import build_network
from mambair.imaging.files import write_image
from mambair.options import parse_test_options, parse_train_options

ROOT = Path(__file__).resolve().parents[2]

specification = importlib.util.spec_from_file_location("ablations", ROOT / "scripts" / "ablations.py")
ablations = importlib.util.module_from_spec(specification)
specification.loader.exec_module(ablations)

DIFFERENCES = {
    "table1_1_remove_conv": {"local_block": "ca"},
    "table1_2_remove_conv_ca": {"local_block": "none"},
    "table1_3_mlp": {"local_block": "mlp"},
    "table2_one_direction": {"scan_directions": 1},
    "table2_two_directions": {"scan_directions": 2},
}


def load(row: str) -> dict:
    return yaml.safe_load((ROOT / "options" / "ablation" / f"{row}.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("row", DIFFERENCES)
def test_a_row_differs_from_the_baseline_in_one_key(row):
    baseline, content = load("baseline"), load(row)
    assert content.pop("name") != baseline.pop("name")
    for key, value in DIFFERENCES[row].items():
        assert content["network_g"].pop(key) == value
    assert content == baseline


def test_there_is_one_file_per_row():
    files = sorted(path.stem for path in (ROOT / "options" / "ablation").glob("*.yml"))
    assert files == sorted(ablations.ROWS) == sorted(["baseline", *DIFFERENCES])


@pytest.mark.parametrize("row", ablations.ROWS)
def test_networks_are_built_and_differ_in_size(row):
    options = parse_train_options(ROOT / "options" / "ablation" / f"{row}.yml")
    small = {**options.network_g, "embed_dim": 32, "depths": [1]}
    count = sum(parameter.numel() for parameter in build_network(small).parameters())
    baseline = build_network({**small, "local_block": "cab", "scan_directions": 4})
    assert (count < sum(p.numel() for p in baseline.parameters())) == (row != "baseline")


def test_milestones_follow_the_budget():
    options = parse_train_options(ROOT / "options" / "ablation" / "baseline.yml")
    overrides = ablations.scaled_overrides(options, 1000)
    assert "train:total_iter=1000" in overrides
    assert "train:scheduler:milestones=[500, 800, 900, 950]" in overrides


def test_two_rows_are_trained_and_tabulated(tmp_path, monkeypatch):
    photo = np.ascontiguousarray(skimage.data.astronaut()[:64, 200:264])
    for folder in ("DF2K", "Set5", "Set14", "Urban100"):
        write_image(tmp_path / folder / "a.png", photo)
    synthetic = "{type: SyntheticDataset, task: SR, dataroot_gt: %s}"
    training = (
        "{type: SyntheticDataset, task: SR, dataroot_gt: %s, gt_size: 16, batch_size_per_gpu: 1, num_worker_per_gpu: 0}"
    )
    overrides = [
        "num_gpu=0",
        "network_g:embed_dim=16",
        "network_g:depths=[1]",
        "network_g:d_state=2",
        "network_g:upsampler=pixelshuffledirect",
        "train:amp=none",
        "logger:use_tb_logger=false",
        f"datasets:train={training % (tmp_path / 'DF2K')}",
        *(
            f"datasets:{key}={synthetic % (tmp_path / name)}"
            for key, name in (("val", "Set5"), ("val_2", "Set14"), ("val_3", "Urban100"))
        ),
    ]
    monkeypatch.chdir(tmp_path)
    rows = ["--rows", "baseline", "table2_one_direction"]
    assert ablations.main(["--iterations", "2", *rows, "--force_yml", *overrides]) == 0
    table = (tmp_path / "results" / "ablation_baseline" / "comparison.md").read_text(encoding="utf-8")
    assert "ablation_table2_one_direction" in table and "Bicubic" in table
    test_file = tmp_path / "experiments" / "ablation_table2_one_direction" / "test.yml"
    assert parse_test_options(test_file).network_g["scan_directions"] == 1
    # Repeated, the command trains nothing anew.
    weights = tmp_path / "experiments" / "ablation_baseline" / "models" / "net_g_2.pth"
    stamp = weights.stat().st_mtime_ns
    assert ablations.main(["--iterations", "2", *rows, "--force_yml", *overrides]) == 0
    assert weights.stat().st_mtime_ns == stamp
