"""The small option files of docs/tasks.md: they load, their networks build, and each test fits its training."""

from pathlib import Path

import pytest

from mambair.archs import build_network
from mambair.options import parse_test_options, parse_train_options

SMALL = Path(__file__).resolve().parents[2] / "options" / "small"
TASKS = sorted(path.stem for path in SMALL.glob("*.yml") if not path.stem.endswith("_test"))


def test_all_six_tasks_are_there() -> None:
    expected = {"SR_x2", "lightSR_x2", "RealSR_x4_mse", "RealSR_x4_gan", "ColorDN_25", "CAR_q10", "RealDN"}
    assert set(TASKS) == expected


@pytest.mark.parametrize("task", TASKS)
def test_a_test_file_tests_what_its_training_file_trains(task: str) -> None:
    training, test = parse_train_options(SMALL / f"{task}.yml"), parse_test_options(SMALL / f"{task}_test.yml")
    assert training.name == test.name == f"small_{task}"
    assert training.source.warnings == test.source.warnings == ()
    assert training.network_g == test.network_g and training.scale == test.scale
    weights = Path("experiments") / training.name / "models" / f"net_g_{training.train.total_iter}.pth"
    assert test.path.pretrain_network_g == weights
    assert sum(parameter.numel() for parameter in build_network(training.network_g).parameters()) < 500_000


def test_stage_two_starts_from_stage_one() -> None:
    stage_one, stage_two = (parse_train_options(SMALL / f"RealSR_x4_{stage}.yml") for stage in ("mse", "gan"))
    weights = Path("experiments") / stage_one.name / "models" / f"net_g_{stage_one.train.total_iter}.pth"
    assert stage_two.path.pretrain_network_g == weights and stage_two.path.param_key_g == "params_ema"
