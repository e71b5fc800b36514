"""Tasks by name: which weights serve them, in which order, and what is said where none do."""

import json
from pathlib import Path

import pytest
import skimage.data
import torch

from mambair.archs import build_network
from mambair.commands.demo import shown_names, task_help
from mambair.commands.restore.command import main as restore_main
from mambair.commands.weights import main as weights_main
from mambair.errors import UserError
from mambair.imaging.files import read_image, write_image
from mambair.inference.restorer import load_model
from mambair.weights.measured import measured
from mambair.weights.published import PUBLISHED
from mambair.weights.sources import find_weights, read_purpose, served_by, weights_at_hand
from mambair.weights.tasks import KINDS, TASKS, Level, task_name

TINY = {"type": "MambaIR", "embed_dim": 12, "depths": [1], "d_state": 4, "mlp_ratio": 1.5}


def ship(folder: Path, name: str, kind: str, scale: int, noise: str | None = None) -> Path:
    """A network in the package, as `mambair weights convert` puts it there."""
    folder.mkdir(parents=True, exist_ok=True)
    source, target = folder.parent / f"{name}.pth", folder / f"{name}.safetensors"
    upsampler = "pixelshuffledirect" if scale > 1 else ""
    torch.manual_seed(0)
    network = build_network(TINY | {"upscale": scale, "upsampler": upsampler})
    torch.save({"params": network.state_dict()}, source)
    level = [] if noise is None else ["--noise", noise]
    assert weights_main(["convert", str(source), "-o", str(target), "--half", "--task", kind, *level]) == 0
    return target


@pytest.fixture
def all_seven(nothing_shipped: Path) -> dict[str, Path]:
    """The package as it is meant to be: networks called like their tasks."""
    made = {f"x{scale}": ship(nothing_shipped, f"x{scale}", "sr", scale) for scale in (4, 2, 3)}
    made["denoise"] = ship(nothing_shipped, "denoise", "denoise", 1, "0-55")
    made["jpeg"] = ship(nothing_shipped, "jpeg", "jpeg", 1, "10-95")
    made |= {f"photo_x{scale}": ship(nothing_shipped, f"photo_x{scale}", "photo", scale) for scale in (1, 4)}
    return made


def test_every_task_is_served_by_what_lies_in_the_package(all_seven: dict[str, Path]) -> None:
    for name, path in all_seven.items():
        assert find_weights(None, task=name) == path, name
        assert load_model(task=name, device="cpu").scale == (TASKS[name].scale or 2)
    assert find_weights(None) == find_weights(None, task="sr") == all_seven["x2"], "the default never changes"
    assert find_weights(None, task="photo") == all_seven["photo_x1"]
    assert {task_name(read_purpose(path)[0], TASKS[name].scale) for name, path in all_seven.items()} == set(all_seven)


def test_a_file_called_like_its_task_comes_before_another(nothing_shipped: Path) -> None:
    ship(nothing_shipped, "a_second_one", "sr", 2)
    named = ship(nothing_shipped, "x2", "sr", 2)
    assert served_by("x2") == served_by("sr") == served_by(None) == named


def test_blind_networks_serve_the_levels_that_they_state(all_seven: dict[str, Path], own_cache: Path) -> None:
    assert read_purpose(all_seven["denoise"]) == ("denoise", Level(0, 55))
    assert weights_at_hand("denoise", 25) == weights_at_hand("denoise", 55) == all_seven["denoise"]
    assert weights_at_hand("jpeg", 10) == all_seven["jpeg"]
    with pytest.raises(UserError, match=r"--task denoise --noise 56 .* pass --weights"):
        weights_at_hand("denoise", 56)
    with pytest.raises(UserError, match="state noise 10-95, not 5"):
        load_model(all_seven["jpeg"], device="cpu", task="jpeg", noise=5)
    assert load_model(all_seven["jpeg"], device="cpu", task="jpeg", noise=40).scale == 1
    exact = own_cache / PUBLISHED["ColorDN_25"].file_name
    exact.write_bytes((all_seven["denoise"].parent.parent / "denoise.pth").read_bytes())
    assert weights_at_hand("denoise", 25) == exact, "exactly this level comes first"
    assert weights_at_hand("denoise", 24) == weights_at_hand("denoise", None) == all_seven["denoise"]


def test_own_weights_in_the_cache_serve_the_task_that_they_state(
    nothing_shipped: Path, own_cache: Path, capsys: pytest.CaptureFixture
) -> None:
    own = ship(own_cache, "my_blind_denoiser", "denoise", 1, "0-55")
    assert served_by("denoise", 30) == own and served_by("jpeg") is None
    (own_cache / "broken.safetensors").write_bytes(b"\x01\0\0\0\0\0\0\0{")
    assert served_by("denoise") == own
    printed = "".join(capsys.readouterr().out.split())
    assert "broken.safetensors:cannotberead" in printed and "itispassedover" in printed


@pytest.mark.parametrize(
    ("task", "noise", "message"),
    [
        ("x4", None, "for --task x4 are .* weights get lightSR_x4`, or pass --weights"),
        ("denoise", 50, "for --task denoise --noise 50 are .* weights get ColorDN_50`"),
        ("jpeg", None, "for --task jpeg are .* weights get CAR_q40`"),
        ("photo_x4", None, "for --task photo_x4 are .* weights get RealSR_x4`"),
        ("photo", None, "for --task photo are on .* of your own; none are published for it"),
        ("x4", 25, "noise 25: task 'x4' has no noise level"),
        ("photo", 25, "noise 25: task 'photo' has no noise level"),
        ("sharpen", None, "task 'sharpen' is not known; use one of sr, x2"),
    ],
)
def test_one_line_says_what_to_do(nothing_shipped: Path, task: str, noise: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        weights_at_hand(task, noise)
    assert "\n" not in str(raised.value)


def test_published_files_serve_the_tasks(nothing_shipped: Path, own_cache: Path) -> None:
    for name, task in {"lightSR_x3": "x3", "v2_SR_x4": "x4", "RealSR_x4": "photo_x4", "CAR_q10": "jpeg"}.items():
        assert served_by(task) is None
        path = own_cache / PUBLISHED[name].file_name
        path.touch()
        assert served_by(task) == path
    assert served_by("x2") is None
    assert {each.purpose[0] for each in PUBLISHED.values()} == set(KINDS)


def test_named_weights_are_checked_against_the_task(all_seven: dict[str, Path]) -> None:
    for task, weights, message in (
        ("x4", "x2", "for x2 super-resolution, not for task 'x4'"),
        ("denoise", "jpeg", "state task 'jpeg', not 'denoise'"),
        ("x4", "photo_x4", "state task 'photo', not 'x4'"),
        ("photo", "photo_x4", "for x4 super-resolution, not for task 'photo'"),
    ):
        with pytest.raises(UserError, match=message):
            load_model(all_seven[weights], device="cpu", task=task)
    with pytest.raises(UserError, match="no noise level; leave noise 25 out"):
        load_model(all_seven["x2"], device="cpu", noise=25)
    assert load_model(all_seven["photo_x4"], device="cpu", task="sr").scale == 4


def test_restore_takes_a_task(all_seven: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    photo = tmp_path / "photo.png"
    write_image(photo, skimage.data.astronaut()[:20, 200:223])
    for task, scale in {"x3": 3, "denoise": 1, "jpeg": 1, "photo": 1, "photo_x4": 4}.items():
        output = tmp_path / "out" / f"{task}.png"
        assert restore_main([str(photo), "-o", str(output), "--task", task, "--device", "cpu"]) == 0
        assert read_image(output).shape == (20 * scale, 23 * scale, 3)
    assert restore_main([str(photo), "-o", str(tmp_path / "n.png"), "--task", "x4", "--noise", "9"]) == 2
    assert "task 'x4' has no noise level" in capsys.readouterr().err


def test_lists_and_the_page_show_what_is_there(
    all_seven: dict[str, Path], nothing_shipped: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {"Set5": {"psnr": 31.456, "ssim": 0.87654}, "B": {"psnr": 30, "ssim": 0.8}, "C": {"psnr": 1, "ssim": 0}}
    (nothing_shipped / "measured.json").write_text(json.dumps({"x2": {"scores": scores, "protocol": "Y"}}))
    monkeypatch.setenv("COLUMNS", "220")
    assert weights_main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if line.strip().startswith("x2 ") and "package" in line]
    assert "measured: Set5 31.46/0.8765, B 30.00/0.8000" in row and "C" not in row.replace("package", "")
    (row,) = [line for line in lines if line.strip().startswith("denoise ") and "package" in line]
    assert "denoise, 0-55" in row and "not measured" in row
    shown = dict(map(reversed, shown_names([str(path) for path in all_seven.values()])))
    for name, path in all_seven.items():
        assert shown[str(path)] == f"{name}: {TASKS[name].hint} ({name})"
        assert f"**{name}**: {TASKS[name].hint} ({name})" in task_help()


def test_the_page_says_how_to_get_what_is_missing(nothing_shipped: Path) -> None:
    text = task_help()
    assert "mambair weights get ColorDN_25" in text and "mambair weights get lightSR_x2" in text
    assert "**photo_x1**" in text and "none here, and none published" in text


def test_what_was_measured_is_of_networks_that_are_there() -> None:
    from mambair.weights.sources import shipped_weights

    assert set(measured()) == set(shipped_weights())
    documented = (Path(__file__).resolve().parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")
    for name, figures in measured().items():
        assert f"`{name}`" in documented and figures.summary() in documented and figures.protocol
