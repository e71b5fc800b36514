"""`mambair finetune`: photos drawn, a plan by their number, training, a verdict, and going on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

from mambair.archs import build_network
from mambair.commands.finetune import command
from mambair.commands.finetune.command import main
from mambair.commands.finetune.photos import find_photos, same_photos, split_photos
from mambair.commands.finetune.plan import FEWEST_ITERATIONS, purpose_of, sizes_for
from mambair.commands.finetune.verdict import Verdict
from mambair.commands.options.check import mistakes
from mambair.commands.train import main as train_main
from mambair.commands.weights import main as weights_main
from mambair.errors import UserError
from mambair.imaging.files import read_image, write_image
from mambair.imaging.resize import imresize
from mambair.options import parse_options
from mambair.options.plugins import load_plugins
from mambair.weights.loading import load_network, save_weights
from mambair.weights.tasks import Level
from tests.engine.tiny_run import NETWORK

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"

PLACES = [("astronaut", 0, 0), ("astronaut", 0, 300), ("coffee", 20, 40), ("coffee", 200, 300), ("chelsea", 0, 40)]
PLACES += [("rocket", 100, 300), ("astronaut", 300, 100), ("hubble_deep_field", 100, 200)]


def write_photos(folder: Path, size: int = 128) -> Path:
    for number, (name, top, left) in enumerate(PLACES):
        photo = getattr(skimage.data, name)()[top : top + size, left : left + size]
        write_image(folder / ("more" if number % 2 else "") / f"{number}.png", np.ascontiguousarray(photo))
    return folder


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos")
    torch.manual_seed(0)
    save_weights(build_network({**NETWORK, "upscale": 2}), tmp_path / "net.safetensors")
    return tmp_path


def finetune(*arguments: str) -> int:
    return main(["photos", "--weights", "net.safetensors", "-o", "out", "--device", "cpu", *arguments])


def same(one: Path, other: Path) -> bool:
    first, second = (load_network(path).state_dict() for path in (one, other))
    return all(torch.equal(first[key], second[key]) for key in first)


def test_an_untrained_network_gains(world: Path, capsys: pytest.CaptureFixture) -> None:
    assert finetune("--iterations", "40") == 0
    printed = capsys.readouterr().out
    assert "6 photos to train on, 1 to find the end by, 1 to judge by" in printed and "gain: +" in printed
    out = world / "out"
    lists = [(out / name).read_text(encoding="utf-8") for name in ("train.txt", "watched.txt", "judged.txt")]
    assert sorted("".join(lists).split()) == sorted(f"{'more/' if n % 2 else ''}{n}.png" for n in range(len(PLACES)))
    options = parse_options(out / "recipe.yml")
    assert mistakes(options) == [] and options.source.warnings == ()
    assert not same(out / "weights.safetensors", out / "start.safetensors")
    assert same(out / "weights.safetensors", out / "experiments" / "finetuned" / "models" / "net_g_best.pth")
    # The report says what the tests found.
    scores = {
        name: json.loads((out / "results" / name / "metrics.json").read_text(encoding="utf-8"))["datasets"]["held_out"]
        for name in ("before", "after")
    }
    gain = scores["after"]["psnr"] - scores["before"]["psnr"]
    assert gain > 0.01
    assert f"gain: {gain:+.3f} dB PSNR; 1 of 1 photos" in (out / "report.md").read_text(encoding="utf-8")
    picture = read_image(out / "before_after.png")
    assert picture.shape[1] > 4 * 192  # input, before, after, ground truth


def test_the_recipe_does_the_same_with_train(world: Path) -> None:
    assert finetune("--iterations", "20") == 0
    models = world / "out" / "experiments" / "finetuned" / "models"
    (models / "net_g_20.pth").rename(world / "first.pth")
    assert train_main(["-opt", "out/recipe.yml"]) == 0
    assert same(world / "first.pth", models / "net_g_20.pth")


def test_no_gain_keeps_the_old_weights(world: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("mambair.commands.finetune.plan.SLOWEST", 0.0)
    monkeypatch.setattr("mambair.commands.finetune.plan.FASTEST", 0.0)
    assert finetune("--iterations", "40") == 0
    printed = capsys.readouterr().out
    assert "no gain: +0.000 dB PSNR (0 of 1" in printed and "the old weights are kept" in printed
    assert "ends early: no better validation for 3 in a row" in printed.replace("\n", " ").replace("  ", " ")
    assert (world / "out/weights.safetensors").read_bytes() == (world / "out/start.safetensors").read_bytes()


def test_the_same_command_goes_on(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Stopped while training: the plan is there, some checkpoints, and no verdict.
    with monkeypatch.context() as patched:
        patched.setattr(command, "compare", lambda *arguments: 7)
        assert finetune("--iterations", "20") == 7
    models = world / "out" / "experiments" / "finetuned" / "models"
    states = models.parent / "training_states"
    whole = load_network(models / "net_g_20.pth").state_dict()
    for path in (models / "net_g_20.pth", states / "20.state", states / "20.sha256", models / "net_g_latest.pth"):
        path.unlink()
    assert finetune("--iterations", "20") == 0
    again = load_network(models / "net_g_20.pth").state_dict()
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert len(list(models.parent.glob("train_*.log"))) == 2 and (world / "out" / "report.md").is_file()


def test_other_settings_do_not_go_on(world: Path, capsys: pytest.CaptureFixture) -> None:
    assert finetune("--iterations", "10") == 0
    for change in (["--iterations", "12"], ["--iterations", "10", "--seed", "1"]):
        assert finetune(*change) == 2
        assert "is of an earlier run with other photos, weights or settings" in capsys.readouterr().err
    write_image(world / "photos" / "another.png", np.ascontiguousarray(skimage.data.cat()[100:228, 200:328]))
    assert finetune("--iterations", "10") == 2


def test_denoising_needs_to_be_told(world: Path, capsys: pytest.CaptureFixture) -> None:
    save_weights(build_network({**NETWORK, "upscale": 1, "upsampler": ""}), world / "net.safetensors")
    assert finetune() == 2
    assert "add --task denoise --noise SIGMA" in capsys.readouterr().err
    assert finetune("--task", "denoise", "--noise", "25", "--iterations", "10") == 0
    section = parse_options("out/recipe.yml").datasets["train"]
    assert (section.task, section.noise) == ("denoising_color", 25)
    assert "| Input |" in (world / "out/results/before/metrics.md").read_text(encoding="utf-8")


def test_purposes(tmp_path: Path) -> None:
    enlarging = build_network(NETWORK)
    plain, real = tmp_path / "a.pth", tmp_path / "RealSR_x4.pth"
    for path in (plain, real):
        save_weights(enlarging, path)
    assert purpose_of(enlarging, plain, None, None).task == "x2"
    with pytest.raises(UserError, match="leave --task out"):
        purpose_of(enlarging, plain, "denoise", Level(25, 25))
    with pytest.raises(UserError, match="options new photo"):
        purpose_of(enlarging, real, None, None)
    gray = build_network({**NETWORK, "upscale": 1, "upsampler": "", "in_chans": 1})
    save_weights(gray, tmp_path / "a.safetensors")
    found = purpose_of(gray, tmp_path / "a.safetensors", "jpeg", Level(10, 10))
    assert (found.task, found.noise, found.is_gray) == ("jpeg", Level(10, 10), True)
    for kind, level in (("jpeg", "10-95"), ("photo", None)):
        stating = tmp_path / f"{kind}.safetensors"
        noise = [] if level is None else ["--noise", level]
        arguments = ["convert", str(tmp_path / "a.safetensors"), "-o", str(stating), "--task", kind, *noise]
        assert weights_main(arguments) == 0
    found = purpose_of(gray, tmp_path / "jpeg.safetensors", None, None)
    assert (found.task, found.noise) == ("jpeg", Level(10, 95))
    with pytest.raises(UserError, match="options new photo"):
        purpose_of(gray, tmp_path / "photo.safetensors", None, None)


def test_a_blind_network_is_tuned_for_all_its_levels(world: Path) -> None:
    save_weights(build_network({**NETWORK, "upscale": 1, "upsampler": ""}), world / "net.safetensors")
    assert finetune("--task", "denoise", "--noise", "0-40", "--iterations", "10") == 0
    sections = parse_options("out/recipe.yml").datasets
    assert sections["train"].degradation == [{"type": "RandomGaussianNoise", "sigma": [0, 40], "clip_odds": 0.5}]
    assert (sections["val"].task, sections["val"].noise) == ("denoising_color", 20)


def test_photos_that_are_left_out(world: Path) -> None:
    write_image(world / "photos" / "small.png", np.zeros((60, 200, 3), np.uint8))
    write_image(world / "photos" / "gray.png", np.zeros((200, 200, 1), np.uint8))
    (world / "photos" / "bad.png").write_bytes(b"nothing")
    (world / "photos" / ".hidden").mkdir()
    write_image(world / "photos" / ".hidden" / "x.png", np.zeros((200, 200, 3), np.uint8))
    photos, left_out = find_photos(Path("photos"), 96, is_gray=False)
    assert len(photos) == len(PLACES)
    reasons = sorted(line.partition(": ")[0] for line in left_out)
    assert reasons == ["photos/bad.png", "photos/gray.png", "photos/small.png"]
    with pytest.raises(UserError, match="holds 0 photos that can be used"):
        find_photos(Path("photos"), 1000, is_gray=False)


def test_photos_that_show_the_same_are_on_one_side(world: Path) -> None:
    for number in range(4):
        photo = read_image(world / "photos" / "0.png")
        write_image(world / "photos" / f"copy{number}.png", imresize(photo, 0.9 - 0.05 * number))
    photos, _ = find_photos(Path("photos"), 32, is_gray=False)
    assert sorted(map(len, same_photos(photos))) == [1] * (len(PLACES) - 1) + [5]
    for seed in range(12):
        split = split_photos(photos, seed)
        sides = {
            part for part in ("trained", "watched", "judged") for photo in getattr(split, part) if "copy" in photo.name
        }
        assert len(sides) == 1 and split.trained and split.watched and split.judged
    copies = [photo for photo in photos if "copy" in photo.name or photo.name == "0.png"]
    with pytest.raises(UserError, match="show 1 different things"):
        split_photos(copies, 0)


def test_sizes_follow_the_photos(world: Path) -> None:
    photos, _ = find_photos(Path("photos"), 32, is_gray=False)
    few, many = sizes_for(photos, 2, False, None), sizes_for(photos * 400, 2, False, None)
    assert few.total_iter == FEWEST_ITERATIONS < many.total_iter
    assert few.learning_rate < many.learning_rate == 1e-4
    assert few.gt_size == 64 and sizes_for(photos, 3, True, None).gt_size == 126  # the photos have 128 pixels
    assert sizes_for(photos, 2, False, 7).total_iter == 7


def test_verdicts() -> None:
    mixed = Verdict({"a": 30.0, "b": 31.0}, {"a": 30.5, "b": 30.9})
    assert mixed.is_gain and mixed.better == 1 and mixed.sentence().startswith("gain: +0.200 dB PSNR; 1 of 2")
    worse = Verdict({"a": 30.0}, {"a": 29.5})
    assert worse.sentence() == (
        "no gain: -0.500 dB PSNR (0 of 1 photos that were not trained on are better); the old weights are kept"
    )
    assert not Verdict({"a": 30.0}, {"a": 30.005}).is_gain  # less than anybody would see or trust


@pytest.mark.usefixtures("plugins_forgotten")
def test_a_network_of_a_plug_in(world: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copy(EXAMPLES / "my_network.py", world / "mine.py")
    load_plugins(["mine.py"], world)
    save_weights(build_network({"type": "MyNetwork", "channels": 8, "blocks": 1}), world / "net.safetensors")
    assert finetune("--iterations", "20", "--plugin", "mine.py") == 0
    for name in ("recipe.yml", "test.yml"):
        options = parse_options(world / "out" / name)
        assert options.plugins == [str(world / "mine.py")] and options.source.warnings == ()
    assert load_network(world / "out" / "weights.safetensors").first.out_channels == 8
