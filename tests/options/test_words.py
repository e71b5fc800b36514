"""What is said: near names only, all mistakes together, and what changed since a checkpoint."""

import re
from pathlib import Path

import pytest

from mambair.commands import test as test_command
from mambair.commands.data import main as data_main
from mambair.commands.train import main as train_main
from mambair.options.yaml_reader import parse_value
from mambair.registry import did_you_mean
from tests.engine.tiny_run import train_options, write_options

LOSSES = ("L1Loss", "MSELoss", "CharbonnierLoss", "PSNRLoss", "GANLoss", "PerceptualLoss")


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("SSIMLoss", None),
        ("L2Loss", None),
        ("VGGLoss", None),
        ("L1Los", "L1Loss"),
        ("CharbonierLoss", "CharbonnierLoss"),
        ("MSLoss", "MSELoss"),
        ("Huber", None),
    ],
)
def test_only_near_names_are_suggested(word: str, near: str | None) -> None:
    assert did_you_mean(word, LOSSES) == (f"; did you mean '{near}'?" if near else "")


def test_metrics_are_compared_without_what_all_begin_with() -> None:
    known = ("calculate_psnr", "calculate_ssim", "calculate_niqe")
    assert did_you_mean("calculate_fid", known) == ""
    assert did_you_mean("calculate_pnsr", known) == "; did you mean 'calculate_psnr'?"


def test_all_mistakes_are_told_together(tmp_path: Path, capsys) -> None:
    options = train_options(
        tmp_path,
        train__pixel_opt={"type": "SSIMLoss"},
        train__optim_g={"type": "Adam", "lr": 1e-3, "beta": [0.9, 0.99]},
        network_g__embed_dims=8,
        val__metrics__psnr={"type": "calculate_psnr", "crop_boarder": 2},
        path__pretrain_network_g="nix.pth",
    )
    assert train_main(["-opt", str(write_options(tmp_path, options))]) == 2
    error = capsys.readouterr().err
    for words in ("unknown loss 'SSIMLoss'", "'beta' for Adam", "'embed_dims'", "'crop_boarder'", "nix.pth"):
        assert words in error, words
    assert all("options.yml:" in line for line in error.splitlines())
    assert not (tmp_path / "experiments").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bogus": 1}, "bogus: unknown key"),
        ({"datasets__train__io_backend": {"type": "disc"}}, "did you mean 'disk'?"),
        ({"datasets__val__type": None}, "datasets.val: key 'type' is missing"),
        ({"datasets__train__gt_size": 9}, "9 is no multiple of scale 2"),
        ({"logger": 3}, "logger: expected a block of keys"),
        ({"train__losses": [{"type": "L1Loss", "wait": 1}]}, "train.losses"),
    ],
)
def test_mistakes_of_sections_and_of_components_are_told_together(
    tmp_path: Path, capsys, changes: dict[str, object], words: str
) -> None:
    components = {"network_g__embed_dims": 8, "path__pretrain_network_g": "nix.pth"}
    options = train_options(tmp_path, **components, **changes)
    assert train_main(["-opt", str(write_options(tmp_path, options))]) == 2
    told = capsys.readouterr().err
    assert words in told and "did you mean 'embed_dim'?" in told and "nix.pth" in told
    places = [int(number) for number in re.findall(r"options\.yml:(\d+)", told)]
    assert places == sorted(places) and len(places) >= 3
    assert not (tmp_path / "experiments").exists()


def test_what_a_file_cannot_do_without_is_told_alone(tmp_path: Path, capsys) -> None:
    options = train_options(tmp_path, name=None, network_g__embed_dims=8)
    assert train_main(["-opt", str(write_options(tmp_path, options))]) == 2
    told = capsys.readouterr().err
    assert "name" in told and len(told.splitlines()) == 1


def test_missing_weights_are_told_with_their_place(tmp_path: Path, capsys) -> None:
    file = write_options(tmp_path, train_options(tmp_path))
    assert train_main(["-opt", str(file), "--force_yml", "path:pretrain_network_g=nix.pth"]) == 2
    place = "--force_yml path:pretrain_network_g=nix.pth: path.pretrain_network_g: weights nix.pth: no such file"
    assert place in capsys.readouterr().err


def test_what_differs_from_the_checkpoint_is_told(tmp_path: Path, capsys) -> None:
    assert train_main(["-opt", str(write_options(tmp_path, train_options(tmp_path, train__total_iter=2)))]) == 0
    capsys.readouterr()
    changed = train_options(
        tmp_path,
        train__total_iter=3,
        train__pixel_opt={"type": "MSELoss"},
        datasets__train__batch_size_per_gpu=1,
        train__optim_g={"type": "Adam", "lr": 5e-4, "betas": [0.9, 0.99]},
    )
    assert train_main(["-opt", str(write_options(tmp_path, changed)), "--auto_resume"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in (
        "train.pixel_opt.type: now MSELoss, was L1Loss",
        "datasets.train.batch_size_per_gpu: now 1, was 2",
        "train.optim_g.lr: now 0.0005, was 0.001",
        "train.total_iter: now 3, was 2",
    ):
        assert f"the option file differs from the checkpoint's: {words}" in printed
    assert train_main(["-opt", str(write_options(tmp_path, changed)), "--auto_resume"]) == 0
    assert "differs from the checkpoint" not in " ".join(capsys.readouterr().out.split())


def test_check_takes_options_from_the_command_line_and_test_does_not_resume(tmp_path: Path, capsys) -> None:
    file = write_options(tmp_path, train_options(tmp_path))
    forced = ("--force_yml", f"datasets:val:dataroot_gt={tmp_path / 'gone'}")
    assert data_main(["check", "-opt", str(file), "--headers-only"]) == 0
    assert data_main(["check", "-opt", str(file), "--headers-only", *forced]) == 2
    assert "gone: no such folder" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit):
        test_command.main(["-opt", str(file), "--auto_resume"])


@pytest.mark.parametrize(("text", "number"), [("010", 10), ("-010", -10), ("0", 0), ("1_000", 1000), ("0x1F", 31)])
def test_leading_zeros_change_no_number(text: str, number: int) -> None:
    assert parse_value(text, "x") == number
