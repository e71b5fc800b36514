"""`mambair options`: check, show, diff, new."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from mambair.archs import build_network
from mambair.commands.options.check import mistakes
from mambair.commands.options.command import main
from mambair.commands.options.resolved import resolve
from mambair.imaging.files import write_image
from mambair.options import TrainOptions, parse_options
from mambair.runtime.log_setup import console

PROJECT = Path(__file__).resolve().parents[3]
LIGHT = PROJECT / "options" / "train" / "lightSR_x2_BSD400.yml"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 400)


def edited(tmp_path: Path, **changes: object) -> Path:
    """A copy of a recipe with keys set, written `section__key`."""
    data = yaml.safe_load(LIGHT.read_text(encoding="utf-8"))
    for key, value in changes.items():
        *outer, last = key.split("__")
        section = data
        for name in outer:
            section = section[name]
        section[last] = value
    path = tmp_path / "edited.yml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def test_rows_say_value_and_origin() -> None:
    options = parse_options(LIGHT, force_yml=["train:total_iter=100", "val:metrics:psnr:crop_border=4"])
    rows = {row.key: row for row in resolve(options)}
    assert (rows["scale"].value, rows["scale"].origin) == ("2", f"{LIGHT}:9")
    assert (rows["train.total_iter"].value, rows["train.total_iter"].origin) == (
        "100",
        "--force_yml train:total_iter=100",
    )
    assert rows["val.metrics.psnr.crop_border"].value == "4" and rows["val.metrics.psnr.crop_border"].is_given
    assert (rows["train.skip_nonfinite"].value, rows["train.skip_nonfinite"].origin) == ("0", "default")
    # A component's own defaults are its signature's.
    assert (rows["network_g.drop_path_rate"].value, rows["network_g.drop_path_rate"].origin) == ("0.1", "default")
    assert rows["network_g.depths"].origin.startswith(str(LIGHT))
    assert rows["datasets.train.io_backend.type"].is_given and not rows["datasets.train.color"].is_given


def test_rows_of_the_degradation_are_there_when_the_file_has_one() -> None:
    def names(path: Path, everything: bool = False) -> set[str]:
        return {row.key for row in resolve(parse_options(path), everything)}

    real = PROJECT / "options" / "train" / "RealSR_x4_mse.yml"
    assert "jpeg_range2" in names(real) and "datasets.train.sinc_prob2" in names(real)
    assert "jpeg_range2" not in names(LIGHT) and "datasets.train.sinc_prob2" not in names(LIGHT)
    assert {"jpeg_range2", "datasets.train.sinc_prob2"} <= names(LIGHT, everything=True)


def test_show(capsys: pytest.CaptureFixture) -> None:
    assert main(["show", str(LIGHT), "--given"]) == 0
    shown = capsys.readouterr().out
    assert "train.pixel_opt.type" in shown and "L1Loss" in shown and f"{LIGHT}:72" in shown
    assert "skip_nonfinite" not in shown
    assert main(["show", str(LIGHT)]) == 0
    assert "skip_nonfinite" in capsys.readouterr().out


def test_check_names_all_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = edited(
        tmp_path,
        train__pixel_opt={"type": "L1Los"},
        train__optim_g={"type": "Adam", "betas": [0.9, 0.99]},
        val__metrics={"psnr": {"type": "calculate_psnr", "crop_boarder": 2}},
        datasets__val__type="PairedImageDatasets",
        model_type="MambaIRModell",
    )
    assert main(["check", str(path)]) == 2
    errors = capsys.readouterr().err
    assert "train.pixel_opt: unknown loss 'L1Los'; did you mean 'L1Loss'" in errors
    assert "train.optim_g: key 'lr' is missing; Adam needs it" in errors
    assert "val.metrics.psnr: unknown key 'crop_boarder'" in errors
    assert "datasets.val.type: unknown dataset 'PairedImageDatasets'" in errors
    assert "model_type: unknown model 'MambaIRModell'" in errors
    assert f"{path}:" in errors


def test_check_builds_the_network(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = edited(tmp_path, network_g__upsampler="pixelshuffel")
    assert main(["check", str(LIGHT), str(path)]) == 2
    printed = capsys.readouterr()
    assert "pixelshuffel" in printed.err
    assert f"{LIGHT}: trains MambaIR x2 for 20,000 iterations of 32 images, validated on Set5" in printed.out


def test_check_notes_weights_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = edited(tmp_path, path__pretrain_network_g="nowhere.pth")
    assert main(["check", str(path)]) == 0
    assert "path.pretrain_network_g: there is no file nowhere.pth yet" in capsys.readouterr().out
    assert main(["check", str(edited(tmp_path, path__pretrain_network_g="x2"))]) == 0
    assert "note:" not in capsys.readouterr().out


def test_diff(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    other = edited(tmp_path, train__skip_nonfinite=3, scale=2)
    assert main(["diff", str(LIGHT), str(other)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if "train." in line]
    assert line.split() == ["train.skip_nonfinite", "│", "0", "(default)", "│", "3"]
    assert main(["diff", str(LIGHT), str(LIGHT)]) == 0
    assert "the files mean the same" in capsys.readouterr().out


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder, side in (("photos", 48), ("held out", 48), ("small", 24)):
        write_image(tmp_path / folder / "a.png", rng.integers(0, 256, (side, side, 3), np.uint8))
    return tmp_path


NEW = {
    "x2": ["x2"],
    "x3-gray": ["x3", "--gray"],
    "x4-classic": ["x4", "--size", "classic"],
    "denoise": ["denoise", "--noise", "15"],
    "denoise-gray": ["denoise", "--gray", "--size", "classic"],
    "denoise-blind": ["denoise", "--noise", "0-55"],
    "jpeg": ["jpeg", "--quality", "10"],
    "jpeg-blind-gray": ["jpeg", "--quality", "10-95", "--gray"],
    "photo": ["photo"],
    "pairs": ["pairs", "--scale", "2", "--degraded", "small", "--val-degraded", "small"],
}
NEW |= {
    f"v2-{name}": [*NEW[name], "--network", "MambaIRv2"]
    for name in ("x2", "x3-gray", "x4-classic", "denoise", "denoise-gray", "jpeg", "photo", "pairs")
} | {
    "v2-x2-classic": ["x2", "--size", "classic", "--network", "MambaIRv2"],
    "v2-photo-classic": ["photo", "--size", "classic", "--network", "MambaIRv2"],
}


@pytest.mark.parametrize("name", NEW)
def test_new_files_are_whole(name: str, folders: Path) -> None:
    path = Path(f"{name}.yml")
    assert main(["new", *NEW[name], "-o", str(path), "--images", "photos", "--val", "held out"]) == 0
    options = parse_options(path)
    assert isinstance(options, TrainOptions) and options.source.warnings == ()
    assert mistakes(options) == [] and options.name == name
    assert options.val is not None and options.val.val_freq and list(options.val.metrics) == ["psnr", "ssim"]
    network = build_network(options.network_g)
    assert network.scale == options.scale
    assert network.in_channels == (1 if "gray" in name else 3)
    size = "" if "classic" in name or name.endswith("denoise-gray") else "Light"
    assert type(network).__name__ == (f"MambaIRv2{size}" if name.startswith("v2") else "MambaIR")
    from mambair.data.builders import BuildContext, build_dataset

    section = options.datasets["val"]
    sample = build_dataset(section, BuildContext(options.where, "datasets.val", options.scale, training=False))[0]
    assert sample["gt"].shape[1] == options.scale * sample["lq"].shape[1] == 48
    assert sample["gt"].shape[0] == network.in_channels


@pytest.mark.parametrize(
    ("arguments", "recipe"),
    [
        ("x2", "v2_lightSR_x2"),
        ("x3", "v2_lightSR_x3"),
        ("x4", "v2_lightSR_x4"),
        ("x2 --size classic", "v2_SR_x2"),
        ("x3 --size classic", "v2_SR_x3"),
        ("x4 --size classic", "v2_SR_x4"),
        ("denoise --size classic", "v2_ColorDN_25"),
        ("jpeg --gray --size classic", "v2_CAR_q40"),
    ],
)
def test_new_networks_of_version_2_are_the_recipes(arguments: str, recipe: str, folders: Path) -> None:
    assert main(["new", *arguments.split(), "--network", "MambaIRv2", "-o", "my.yml", "--images", "photos"]) == 0
    written, published = parse_options("my.yml"), parse_options(PROJECT / "options" / "train" / f"{recipe}.yml")
    assert build_network(written.network_g).hyperparameters == build_network(published.network_g).hyperparameters
    assert written.model_type == published.model_type


def test_keys_without_effect_are_told_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = edited(tmp_path, network_g__interval=3, network_g__num_heads=False)
    assert main(["check", str(path)]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "no effect" in line]
    assert len(told) == 1 and "key 'interval' has no effect on MambaIR" in told[0]


def test_blind_networks_train_on_drawn_strengths_and_are_validated_at_one(folders: Path) -> None:
    assert main(["new", "denoise", "--noise", "0-55", "-o", "d.yml", "--images", "photos", "--val", "held out"]) == 0
    sections = parse_options("d.yml").datasets
    assert sections["train"].degradation == [{"type": "RandomGaussianNoise", "sigma": [0, 55], "clip_odds": 0.5}]
    assert sections["val"].noise == 27 and not sections["val"].degradation
    assert main(["new", "jpeg", "--quality", "10-95", "-o", "j.yml", "--images", "photos", "--val", "held out"]) == 0
    sections = parse_options("j.yml").datasets
    assert sections["train"].degradation == [{"type": "RandomJpeg", "quality": [10, 95]}]
    assert (sections["val"].quality, sections["val"].color) == (52, "rgb")


def test_new_files_are_not_written_over(folders: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["new", "x2", "-o", "my.yml", "--images", "photos"]
    assert main(arguments) == 0
    assert parse_options("my.yml").evaluation_datasets() == {}
    assert main(arguments) == 2
    assert "my.yml: is there already" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x2", "--images", "nowhere"], "nowhere: is no folder"),
        (["pairs", "--images", "photos"], "--degraded FOLDER"),
        (["x2", "--images", "photos", "--degraded", "small"], "choose the task pairs"),
        (["x2", "--images", "photos", "--noise", "25"], "--noise: belongs to the task denoise"),
        (["denoise", "--images", "photos", "--scale", "2"], "--scale: belongs to the task pairs"),
        (["jpeg", "--images", "photos", "--quality", "101"], "quality from 1 to 100"),
        (["jpeg", "--images", "photos", "--quality", "0-95"], "quality from 1 to 100"),
    ],
)
def test_what_does_not_fit(arguments: list[str], message: str, folders: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["new", *arguments, "-o", "my.yml"]) == 2
    assert message in capsys.readouterr().err
    assert not Path("my.yml").exists()
