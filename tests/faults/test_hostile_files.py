"""Files that want to do more than they should: refused with one line, and nothing is run, read or written elsewhere."""

import io
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models import VGG19_Weights

from mambair.commands.restore.command import main as restore
from mambair.commands.test import main as evaluate
from mambair.data.image_sources import read_meta_info
from mambair.data.lmdb_store import LmdbSource, build_lmdb
from mambair.data.pairing import pair_images
from mambair.errors import UserError
from mambair.imaging.files import read_image, write_image
from mambair.losses import PerceptualLoss
from tests.engine.tiny_run import HARD, train_main, train_options, write_options
from tests.engine.tiny_run import test_options as make_test_options
from tests.faults.processes import one_line
from tests.faults.scene import Scene


class Runs:
    """Pickles to a call."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def in_zip(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def zip_with_pickle(content: bytes) -> bytes:
    """torch's archive with a pickle of one's own in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return buffer.getvalue()


def pickles(marker: Path) -> dict[str, bytes]:
    """Files that would make `marker` if what is in them was run."""
    touch = f"open({str(marker)!r}, 'w')"
    evil = {
        "exec": Runs(exec, touch),
        "eval": Runs(eval, touch),
        "system": Runs(__import__("os").system, f"touch {marker}"),
        "popen": Runs(__import__("subprocess").Popen, ["touch", str(marker)]),
        "import": Runs(__import__, "antigravity"),
    }
    files = {f"{name}, bare pickle": pickle.dumps({"params": value}, 2) for name, value in evil.items()}
    files |= {f"{name}, torch's archive": zip_with_pickle(pickle.dumps({"params": v}, 2)) for name, v in evil.items()}
    files["a whole network"] = in_zip(torch.nn.Conv2d(3, 3, 3))
    return files


NAMES = list(pickles(Path("x")))


@pytest.mark.parametrize("name", NAMES)
def test_code_in_weights_is_refused(scene: Scene, tmp_path: Path, name: str) -> None:
    """By every command that takes weights."""
    marker = tmp_path / "it ran"
    weights = tmp_path / "evil.pth"
    weights.write_bytes(pickles(marker)[name])
    photo = scene.root / "photos" / "LR" / "coffeex2.png"
    test_file = write_options(tmp_path, make_test_options(scene.root, weights), "test.yml")
    train_file = scene.write_options(path__pretrain_network_g=str(weights), name="other")
    before = scene.snapshot()
    for command, arguments in (
        (evaluate, ["-opt", str(test_file)]),
        (train_main, ["-opt", str(train_file)]),
        (restore, [str(photo), "-o", str(tmp_path / "out"), "--weights", str(weights)]),
    ):
        scene.capture.readouterr()
        assert command(arguments) == 2
        error = scene.capture.readouterr().err
        assert "refused, since the file holds Python objects (" in one_line(error)
        assert "ask for a file with tensors only, best .safetensors" in one_line(error)
        assert "Traceback" not in error
    assert not marker.exists()
    assert scene.snapshot() == before


@pytest.mark.parametrize("name", NAMES)
def test_code_in_a_state_is_refused(scene: Scene, tmp_path: Path, name: str) -> None:
    marker = tmp_path / "it ran"
    state = tmp_path / "4.state"
    state.write_bytes(pickles(marker)[name])
    outcome = scene.train(path__resume_state=str(state), name="other")
    assert outcome.code == 2
    assert f"error: path.resume_state: {state} is refused, it holds more than tensors (" in outcome.output
    assert not marker.exists()


def test_code_in_the_cache_of_downloads_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    name = Path(VGG19_Weights.IMAGENET1K_V1.url).name
    (tmp_path / "checkpoints" / name).write_bytes(pickles(tmp_path / "it ran")["exec, torch's archive"])
    with pytest.raises(UserError, match=rf"damaged or foreign file in the place of vgg19's .*; remove {name} there"):
        PerceptualLoss()
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system [touch MARKER]",
        "!!python/object/new:os.system [touch MARKER]",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/object/apply:subprocess.check_output [[touch, MARKER]]",
        "!!binary aGVsbG8=",
        "&a [*a]",
        "!!set {a}",
    ],
)
def test_yaml_is_plain_data(scene: Scene, tmp_path: Path, value: str) -> None:
    file = scene.write_options()
    marker = tmp_path / "it ran"
    text = file.read_text().replace("scale: 2", f"scale: {value.replace('MARKER', str(marker))}", 1)
    file.write_text(text)
    before = scene.snapshot()
    outcome = scene.train(options=file)
    assert outcome.code == 2
    line = 1 + text[: text.index("scale: ")].count("\n")
    assert f"error: {file}:{line}: not a valid option file: " in outcome.output
    assert "Traceback" not in outcome.output
    assert not marker.exists()
    assert scene.snapshot() == before
    scene.assert_nothing_lost()


OUTSIDE = ["../outside", "..", "/etc/outside", "a/../../outside", "C:\\outside", "..\\outside", "a\0b", "", "."]


@pytest.mark.parametrize("value", OUTSIDE)
@pytest.mark.parametrize("key", ["name", "datasets__val__name", "val__suffix"])
def test_names_in_option_files_stay_in_their_folders(scene: Scene, key: str, value: str) -> None:
    options = scene.write_options(**{key: value})
    before = sorted(scene.root.parent.rglob("*"))
    outcome = scene.train(options=options)
    assert outcome.code == 2
    assert f": {key.replace('__', '.')}: expected a plain folder name without '/' or '..'" in outcome.output
    assert sorted(scene.root.parent.rglob("*")) == before


@pytest.mark.parametrize("template", ["../{}", "/{}", "a/{}", "..\\{}", "{}/../../x", "x", "{}{}", "{0.__class__}{}"])
def test_file_name_templates_stay_in_their_folders(scene: Scene, template: str) -> None:
    outcome = scene.train(datasets__train__filename_tmpl=template)
    assert outcome.code == 2
    assert "datasets.train.filename_tmpl: expected a file name with one '{}' and no" in outcome.output


@pytest.mark.parametrize(
    "entry", ["../HR/coffee.png", "/etc/passwd", "a/../../x.png", "..\\x.png", "C:\\x.png", "a\0.png"]
)
def test_meta_info_entries_stay_below_their_root(scene: Scene, tmp_path: Path, entry: str) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"astronaut.png\n{entry} (64,64,3)\n")
    with pytest.raises(UserError, match=r"list\.txt:2: .* leaves its root folder; use a relative path without '\.\.'"):
        read_meta_info(listed)
    outcome = scene.train(datasets__train__meta_info_file=str(listed))
    assert outcome.code == 2
    assert "list.txt:2: " in outcome.output
    assert "leaves its root folder" in outcome.output
    scene.assert_nothing_lost()


@pytest.mark.parametrize("key", ["../secret.png", "a/../../secret.png", "/etc/secret.png"])
def test_database_keys_stay_below_their_root(tmp_path: Path, key: str) -> None:
    write_image(tmp_path / "images" / "a.png", np.zeros((8, 8, 3), np.uint8))
    build_lmdb(tmp_path / "images", tmp_path / "x.lmdb")
    meta = tmp_path / "x.lmdb" / "meta_info.txt"
    meta.write_text(meta.read_text() + f"{key} (8,8,3)\n")
    with pytest.raises(UserError, match=r"meta_info\.txt:2: .* leaves its root folder"):
        LmdbSource(tmp_path / "x.lmdb").names()
    with pytest.raises(UserError, match=r"names: .* leaves its root folder"):
        build_lmdb(tmp_path / "images", tmp_path / "y.lmdb", names=[key])


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG that declares its size, with nothing in it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    body = chunk(b"IHDR", size + b"\x08\x02\0\0\0") + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (2**31 - 1, 1), (2**27 + 1, 1), (11_586, 11_586)])
def test_image_bombs_are_refused_by_a_limit(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(width, height))
    with pytest.raises(
        UserError, match=r"declares \S+ pixels, more than the limit of 134217728; .* MAMBAIR_MAX_PIXELS"
    ):
        read_image(path)


def test_the_limit_of_pixels_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    write_image(path, np.zeros((30, 40, 3), np.uint8))
    monkeypatch.setenv("MAMBAIR_MAX_PIXELS", "1199")
    with pytest.raises(UserError, match="declares 40x30 pixels, more than the limit of 1199"):
        read_image(path)
    monkeypatch.setenv("MAMBAIR_MAX_PIXELS", "1200")
    assert read_image(path).shape == (30, 40, 3)
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_header(20_000, 20_000))
    monkeypatch.setenv("MAMBAIR_MAX_PIXELS", "500000000")
    with pytest.raises(UserError) as raised:
        read_image(bomb)  # past the limit: now it is found to be empty
    assert "declares" not in str(raised.value)
    monkeypatch.setenv("MAMBAIR_MAX_PIXELS", "many")
    with pytest.raises(UserError, match="MAMBAIR_MAX_PIXELS: expected a positive number of pixels, got 'many'"):
        read_image(path)


@pytest.mark.parametrize(
    "name", ["with spaces", "Größe 大 🙂", "new\nline", "tab\tand [red]markup[red]", "q'uo\"te", "%s {} $x"]
)
def test_odd_names_work(tmp_path: Path, capfd: pytest.CaptureFixture, name: str) -> None:
    """In the names of folders, option files and images: training, going on, testing."""
    root = tmp_path / name
    options = train_options(root, **HARD, train__total_iter=2, val__val_freq=2, val__save_img=True)
    for phase, names in (("train", "coffee"), ("val", "rocket")):
        section = options["datasets"][phase]
        gt, lq = Path(section["dataroot_gt"]), Path(section["dataroot_lq"])
        (gt / f"{names}.png").rename(gt / f"{name}.png")
        (lq / f"{names}x2.png").rename(lq / f"{name}x2.png")
    options["name"] = name if name.isprintable() else "plain"
    file = write_options(root, options, f"{name}.yml")
    assert train_main(["-opt", str(file)]) == 0
    saved = root / "experiments" / options["name"] / "visualization" / "held_out" / name / f"{name}_2.png"
    assert saved.is_file()
    options["train"]["total_iter"] = 4
    assert train_main(["-opt", str(write_options(root, options, f"{name}.yml")), "--auto_resume"]) == 0
    weights = root / "experiments" / options["name"] / "models" / "net_g_4.pth"
    test = make_test_options(root, weights, name=options["name"])
    test["datasets"] = {"test_1": options["datasets"]["val"]}
    assert evaluate(["-opt", str(write_options(root, test, f"{name} test.yml"))]) == 0
    output = "".join(capfd.readouterr())
    assert "going on after iteration 2" in output
    assert "Traceback" not in output


def test_odd_names_in_messages_are_one_line(tmp_path: Path) -> None:
    for folder in ("HR", "LR"):
        write_image(tmp_path / folder / "new\nline.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "LR" / "new\nline.png").unlink()
    write_image(tmp_path / "LR" / "other.png", np.zeros((8, 8, 3), np.uint8))
    _, problems = pair_images([tmp_path / "HR"], [tmp_path / "LR"])
    assert [str(problem).count("\n") for problem in problems] == [0]
    assert "new\\nline" in str(problems[0])


def test_names_that_are_no_text(scene: Scene) -> None:
    """File names of other encodings: Python holds them as halves of characters, which no terminal takes."""
    gt, lq = (scene.root / "photos" / folder for folder in ("HR", "LR"))
    (gt / "coffee.png").rename(gt / "caf\udce9.png")
    (lq / "coffeex2.png").rename(lq / "caf\udce9x2.png")
    outcome = scene.train()
    assert outcome.code == 0, outcome.output
    (lq / "caf\udce9x2.png").unlink()
    outcome = scene.train(train__total_iter=7)
    assert outcome.code == 2
    assert "caf\\udce9" in outcome.output
    assert "Traceback" not in outcome.output
