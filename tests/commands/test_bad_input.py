"""Every mistake of a user: one message that says what to do, exit code 2, and nothing overwritten."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mambair.commands.test import main as evaluate
from mambair.commands.train import main as train_main
from mambair.imaging.files import write_image
from tests.engine.tiny_run import test_options as make_test_options
from tests.engine.tiny_run import train, train_options, write_options

MARK = "an earlier run's weights"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with data, and an earlier run and test of the names that will be used."""
    for folder in ("experiments/tiny/models", "results/tiny_test"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "kept.txt").write_text(MARK)
    return tmp_path


def assert_refused(root: Path, code: int, error: str, *parts: str) -> None:
    assert code == 2
    assert error.startswith("error: ")
    assert "Traceback" not in error
    for part in parts:
        assert part in error, error
    kept = sorted(path.relative_to(root).as_posix() for path in root.rglob("kept.txt"))
    assert kept == ["experiments/tiny/models/kept.txt", "results/tiny_test/kept.txt"]
    assert sorted(path.name for path in (root / "experiments" / "tiny").rglob("*")) == ["kept.txt", "models"]


def refuse(root: Path, capsys: pytest.CaptureFixture, *parts: str, lines: int = 1, **changes) -> None:
    """Train with changed options; the error must have all parts."""
    code = train(root, **changes)
    error = capsys.readouterr().err
    assert_refused(root, code, error, *parts)
    assert len(error.splitlines()) == lines


def test_missing_option_file(root: Path, capsys: pytest.CaptureFixture) -> None:
    for main in (train_main, evaluate):
        code = main(["-opt", str(root / "nowhere.yml")])
        assert_refused(root, code, capsys.readouterr().err, "nowhere.yml: no such option file")


def test_yaml_syntax_error_names_the_line(root: Path, capsys: pytest.CaptureFixture) -> None:
    path = root / "broken.yml"
    path.write_text("name: tiny\nscale: [2\ntrain:\n")
    assert_refused(root, train_main(["-opt", str(path)]), capsys.readouterr().err, "broken.yml:3")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"train__total_itr": 5}, ["options.yml:", "total_itr", "did you mean 'total_iter'"]),
        ({"network_g__embed_dims": 8}, ["network_g", "unknown key 'embed_dims'", "did you mean 'embed_dim'"]),
        ({"train__optim_g": {"type": "Adam", "lr": 1e-3, "beta": [0, 1]}}, ["train.optim_g", "did you mean 'betas'"]),
        ({"train__pixel_opt": {"type": "L2Loss"}}, ["train.pixel_opt", "unknown loss 'L2Loss'"]),
        ({"val__metrics__psnr__crop": 2}, ["val.metrics.psnr", "unknown key 'crop'"]),
        ({"model_type": "MambaModel"}, ["model_type", "unknown model 'MambaModel'", "did you mean 'MambaIRModel'"]),
        ({"train__total_iter": "many"}, ["train.total_iter", "many"]),
        ({"train__optim_g__lr": "fast"}, ["train.optim_g", "'lr' is 'fast'"]),
        ({"network_g__depths": 6}, ["network_g", "depths"]),
        ({"train__amp": "fp16"}, ["amp: fp16 needs a CUDA GPU"]),
    ],
)
def test_wrong_key_or_type(root: Path, capsys: pytest.CaptureFixture, changes: dict, parts: list[str]) -> None:
    refuse(root, capsys, *parts, **changes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_cuda(root: Path, capsys: pytest.CaptureFixture) -> None:
    refuse(root, capsys, "num_gpu", "CUDA", "--force_yml num_gpu=0", num_gpu=1)


def test_missing_folder(root: Path, capsys: pytest.CaptureFixture) -> None:
    refuse(root, capsys, "datasets.train.dataroot_gt", "nowhere", datasets__train__dataroot_gt=str(root / "nowhere"))


def test_empty_folder(root: Path, capsys: pytest.CaptureFixture) -> None:
    (root / "empty").mkdir()
    refuse(root, capsys, "datasets.val.dataroot_gt", "holds no images", datasets__val__dataroot_gt=str(root / "empty"))


def corrupt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def shrink(path: Path) -> None:
    write_image(path, np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("damage", "image", "part"),
    [
        (corrupt, "photos/HR/coffee.png", "coffee.png"),
        (shrink, "photos/LR/coffeex2.png", "8x8 pixels do not fit its ground truth of 64x64 at scale 2"),
        (Path.unlink, "photos/LR/coffeex2.png", "no partner 'coffeex2'"),
        (shrink, "held_out/LR/coffeex2.png", "do not fit its ground truth"),
    ],
)
def test_bad_image_is_found_before_the_first_iteration(
    root: Path, capsys: pytest.CaptureFixture, damage: Callable[[Path], None], image: str, part: str
) -> None:
    path = write_options(root, train_options(root))
    damage(root / image)
    assert_refused(root, train_main(["-opt", str(path)]), capsys.readouterr().err, "options.yml:", "coffee", part)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weights")
    assert train(root, train__total_iter=1, val=None) == 0
    return root / "experiments/tiny/models/net_g_1.pth"


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"network_g__embed_dim": 12}, ["network_g.embed_dim: 8"]),
        ({"network_g__depths": [1, 1]}, ["network_g.depths: [2]"]),
    ],
)
def test_weights_of_another_architecture(
    root: Path, capsys: pytest.CaptureFixture, weights: Path, changes: dict, parts: list[str]
) -> None:
    refuse(root, capsys, str(weights), *parts, path__pretrain_network_g=str(weights), **changes)
    options = make_test_options(root, weights, **changes)
    assert_refused(root, evaluate(["-opt", str(write_options(root, options))]), capsys.readouterr().err, *parts)


def test_weights_of_another_scale_name_the_right_one(root: Path, capsys: pytest.CaptureFixture, weights: Path) -> None:
    options = make_test_options(root, weights, scale=4, network_g__upscale=4)
    options["datasets"]["test_1"] |= {"type": "SyntheticDataset", "filename_tmpl": "{}", "dataroot_lq": []}
    code = evaluate(["-opt", str(write_options(root, options))])
    assert_refused(root, code, capsys.readouterr().err, "network_g.upscale: 2")


def test_missing_weights(root: Path, capsys: pytest.CaptureFixture) -> None:
    refuse(root, capsys, "nowhere.pth: no such file", path__pretrain_network_g=str(root / "nowhere.pth"))


def test_missing_state(root: Path, capsys: pytest.CaptureFixture) -> None:
    refuse(root, capsys, "path.resume_state", "1.state", path__resume_state=str(root / "1.state"))


def test_wandb_that_is_not_installed(
    root: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mambair.engine.train.trackers.find_spec", lambda name: None)
    refuse(root, capsys, "wandb is not installed", "mambair[wandb]", logger__wandb={"project": "mambair"})


def test_training_file_given_to_test(root: Path, capsys: pytest.CaptureFixture) -> None:
    path = write_options(root, train_options(root))
    assert_refused(root, evaluate(["-opt", str(path)]), capsys.readouterr().err, "this is a training file")


def test_debug_shows_the_traceback(root: Path, capsys: pytest.CaptureFixture) -> None:
    options = train_options(root, train__pixel_opt={"type": "L2Loss"})
    assert train_main(["-opt", str(write_options(root, options)), "--debug"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "error: " in error


def test_non_finite_loss_stops_the_run_with_a_way_back(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mambair.losses.pixel.L1Loss.penalty", poisoned_after(3))
    assert train(tmp_path, val=None) == 2
    error = capsys.readouterr().err
    assert "iteration 4: the loss is not finite (l_pix); files of the batch: " in error
    assert "coffeex2.png" in error or "astronautx2.png" in error or "chelseax2.png" in error
    assert "training_states/2.state (--auto_resume goes on from it)" in error


def poisoned_after(calls: int) -> Callable:
    count = [0]

    def penalty(self, difference: torch.Tensor) -> torch.Tensor:
        count[0] += 1
        return difference.abs() * (float("nan") if count[0] > calls else 1.0)

    return penalty


def test_option_file_that_is_kept_can_be_trained_again(tmp_path: Path) -> None:
    assert train(tmp_path, train__total_iter=1, val=None) == 0
    kept = tmp_path / "experiments/tiny/effective_options.yml"
    assert yaml.safe_load(kept.read_text())["train"]["total_iter"] == 1
    copy = tmp_path / "again.yml"
    copy.write_text(kept.read_text())
    assert train_main(["-opt", str(copy)]) == 0
    assert len(list((tmp_path / "experiments").glob("tiny_archived_*"))) == 1
