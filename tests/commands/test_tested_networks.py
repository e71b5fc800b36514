"""`mambair test` from a run, with its checkpoints, and one file with several weights."""

import json
from pathlib import Path

import pytest
import torch

from mambair.commands.test import main
from mambair.commands.tested_networks import checkpoints_of, distinct_names
from mambair.errors import UserError
from tests.engine.tiny_run import test_options as make_options
from tests.engine.tiny_run import train, write_options


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    assert train(root, train__total_iter=6, val__val_freq=2, logger__save_checkpoint_freq=2) == 0
    return root


def run_folder(root: Path) -> str:
    return str(root / "experiments" / "tiny")


def results(root: Path, name: str) -> dict:
    return json.loads((root / "results" / name / "metrics.json").read_text(encoding="utf-8"))


def logged(root: Path) -> dict[int, float]:
    """Iteration -> PSNR, as the training log has it."""
    from mambair.analysis.training_logs import read_run

    (found,) = read_run(Path(run_folder(root))).validations.values()
    return {iteration: scores["psnr"] for iteration, scores in found.items()}


def test_a_run_is_tested_as_it_was_validated(world: Path) -> None:
    assert main(["--run", run_folder(world)]) == 0
    content = results(world, "tiny_best")
    (scores,) = content["datasets"].values()
    assert scores["psnr"] == pytest.approx(max(logged(world).values()), abs=0.006)  # logs have two digits
    assert len(scores["images"]) == 3
    assert content["weights"].endswith("net_g_best.pth")
    assert not (world / "results" / "tiny_best" / "checkpoints.json").exists()


def test_a_curve_of_all_checkpoints(world: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--run", run_folder(world), "--checkpoints", "all"]) == 0
    curve = json.loads((world / "results" / "tiny_6" / "checkpoints.json").read_text(encoding="utf-8"))
    ((dataset, metrics),) = curve.items()
    assert dataset == "held_out" and set(metrics) == {"psnr", "ssim"}
    assert [iteration for iteration, _ in metrics["psnr"]] == [2, 4, 6]
    for iteration, value in metrics["psnr"]:
        assert value == pytest.approx(logged(world)[iteration], abs=0.006)
    printed = capsys.readouterr().out
    assert "tiny_2" in printed and "tiny_6" in printed and "checkpoints.json" in printed.replace("\n", "")


def test_a_run_on_the_sets_of_an_option_file(world: Path) -> None:
    other = {"type": "SyntheticDataset", "task": "SR", "name": "others", "dataroot_gt": str(world / "photos" / "HR")}
    options = make_options(world, Path("nowhere.pth"), datasets={"test_1": other}, network_g={"type": "MambaIR"})
    path = write_options(world, options, "sets.yml")
    assert main(["-opt", str(path), "--run", run_folder(world), "--checkpoints", "4", "latest"]) == 0
    assert list(results(world, "tiny_test_tiny_4")["datasets"]) == ["others"]
    assert (world / "results" / "tiny_test_tiny_latest" / "metrics.json").is_file()


def test_one_file_with_several_weights(world: Path) -> None:
    models = Path(run_folder(world)) / "models"
    path = write_options(world, make_options(world, Path("nowhere.pth")), "weights.yml")
    assert main(["-opt", str(path), "--weights", str(models / "net_g_2.pth"), str(models / "net_g_6.pth")]) == 0
    scores = [results(world, f"tiny_test_net_g_{label}")["datasets"]["held_out"]["psnr"] for label in (2, 6)]
    assert scores[0] != scores[1]
    assert scores == pytest.approx([logged(world)[label] for label in (2, 6)], abs=0.006)
    assert "net_g_6" in (world / "results" / "tiny_test_net_g_2" / "comparison.md").read_text(encoding="utf-8")
    assert main(["-opt", str(path), "--weights", str(models / "net_g_4.pth")]) == 0
    assert results(world, "tiny_test")["weights"].endswith("net_g_4.pth")


def test_names_tell_weights_apart() -> None:
    assert distinct_names([Path("a.pth"), Path("x/b.pth")]) == ["a", "b"]
    runs = [Path(f"experiments/{name}/models/net_g_best.pth") for name in ("A", "B")]
    assert distinct_names(runs) == ["A_net_g_best", "B_net_g_best"]
    with pytest.raises(UserError, match="given twice"):
        distinct_names([Path("a.pth"), Path("a.pth")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pass -opt FILE"),
        (["--checkpoints", "2"], "pass -opt FILE"),
        (["--run", "nowhere"], "nowhere: holds no effective_options.yml"),
        (["--run", "RUN", "--checkpoints", "5"], "--checkpoints 5"),
        (["--run", "RUN", "--checkpoints", "lates"], "did you mean 'latest'"),
        (["--run", "RUN", "--weights", "a.pth"], "--weights: leave it out with --run"),
        (["--run", "RUN", "--force_yml", "scale=2"], "--force_yml"),
        (["-opt", "FILE", "--checkpoints", "2"], "pass --run"),
        (["-opt", "FILE", "--weights", "a.pth", "a.pth"], "given twice"),
    ],
)
def test_what_does_not_fit(arguments: list[str], message: str, world: Path, capsys: pytest.CaptureFixture) -> None:
    path = write_options(world, make_options(world, Path("nowhere.pth")), "refused.yml")
    known = {"RUN": run_folder(world), "FILE": str(path)}
    assert main([known.get(argument, argument) for argument in arguments]) == 2
    assert message in capsys.readouterr().err


def test_runs_without_validation_or_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train(tmp_path, train__total_iter=2, val=None) == 0
    assert main(["--run", run_folder(tmp_path)]) == 2
    assert "no validation set with metrics; pass -opt FILE" in capsys.readouterr().err
    folder = Path(run_folder(tmp_path))
    assert [each.label for each in checkpoints_of(folder)] == ["2", "latest"]
    for file in (folder / "models").iterdir():
        file.unlink()
    assert main(["--run", run_folder(tmp_path)]) == 2
    assert "holds no net_g_*.pth yet" in capsys.readouterr().err


def test_early_end(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    # A rate of zero: the first validation stays the best.
    settings = {"train__optim_g": {"type": "Adam", "lr": 0.0}, "train__ema_decay": 0, "train__total_iter": 100}
    settings |= {"val__val_freq": 2, "val__patience": 3, "logger__save_checkpoint_freq": 50}
    assert train(tmp_path, **settings) == 0
    models = Path(run_folder(tmp_path)) / "models"
    labels = {path.stem.removeprefix("net_g_") for path in models.glob("*.pth")}
    assert labels == {"8", "best", "latest"}  # the first at 2, then three without a better one
    log = next(Path(run_folder(tmp_path)).glob("train_*.log")).read_text(encoding="utf-8")
    assert "ends early: no better validation for 3 in a row" in log and "finished after 8 iterations" in log
    # Going on ends at once, and the weights stay.
    before = torch.load(models / "net_g_8.pth", weights_only=True)["params"]
    assert train(tmp_path, "--auto_resume", **settings) == 0
    after = torch.load(models / "net_g_8.pth", weights_only=True)["params"]
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not (models / "net_g_10.pth").exists()


def test_patience_that_is_not_over(tmp_path: Path) -> None:
    assert train(tmp_path, train__total_iter=4, val__val_freq=2, val__patience=2) == 0
    assert (Path(run_folder(tmp_path)) / "models" / "net_g_4.pth").is_file()
