"""The restore command on what file types hold and cannot: frames, pages, alpha, size; and consoles of few letters."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mambair.commands.restore.command import main
from mambair.imaging.photo import read_photo
from mambair.inference.restorer import Restorer

ROOT = Path(__file__).resolve().parents[3]
PIXELS = np.random.default_rng(0).integers(0, 256, (9, 12, 4), dtype=np.uint8)
FRAMES = [Image.fromarray(np.roll(PIXELS[:, :, :3], shift, axis=1)) for shift in range(3)]


def restore(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("source", "target"),
    [("a.gif", "a.png"), ("a.webp", "a.webp"), ("a.png", "a.png"), ("a.webp", "a.png"), ("a.png", "a.webp")],
)
def test_animations_keep_their_frames_and_times(tmp_path: Path, x2_weights: Path, source: str, target: str) -> None:
    FRAMES[0].save(tmp_path / source, save_all=True, append_images=FRAMES[1:], duration=[50, 120, 200], loop=2)
    out = tmp_path / "out" / target
    assert restore(tmp_path / source, "-o", out, "--weights", x2_weights) == 0
    before, after = read_photo(tmp_path / source), read_photo(out)
    assert len(after.images) == 3 and after.pixels.shape == (18, 24, 3)
    assert after.animation == before.animation and after.animation.milliseconds == (50, 120, 200)
    if target.endswith("png"):  # each frame is what it is alone
        for number, image in enumerate(before.images):
            Image.fromarray(image).save(tmp_path / "alone.png")
            assert restore(tmp_path / "alone.png", "-o", tmp_path / f"{number}.png", "--weights", x2_weights) == 0
            np.testing.assert_array_equal(after.images[number], read_photo(tmp_path / f"{number}.png").pixels)


def test_pages_keep_their_sizes_depths_and_resolutions(tmp_path: Path, x2_weights: Path) -> None:
    pages = [Image.fromarray(PIXELS[:, :, :3]), Image.fromarray(PIXELS[:5, :7, 0]), Image.fromarray(PIXELS)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], dpi=(300, 300))
    assert restore(tmp_path / "a.tif", "-o", tmp_path / "out", "--weights", x2_weights) == 0
    after = read_photo(tmp_path / "out" / "a.tif")
    assert [image.shape for image in after.images] == [(18, 24, 3), (10, 14, 1), (18, 24, 4)]
    assert after.metadata.resolution == (300, 300)
    with Image.open(tmp_path / "out" / "a.tif") as image:
        assert image.n_frames == 3


@pytest.mark.parametrize(
    ("source", "kind", "line"),
    [
        ("a.gif", "jpg", "a.gif: not in the result: frames beyond the first (no place in JPEG)"),
        ("a.webp", "bmp", "a.webp: not in the result: frames beyond the first (no place in BMP)"),
        ("a.tif", "png", "a.tif: not in the result: pages beyond the first (no place in PNG)"),
        ("a.gif", "tif", "a.gif: not in the result: the times of frames (no place in TIFF)"),
    ],
)
def test_what_a_type_cannot_hold_is_said(
    tmp_path: Path, x2_weights: Path, capsys: pytest.CaptureFixture, source: str, kind: str, line: str
) -> None:
    FRAMES[0].save(tmp_path / source, save_all=True, append_images=FRAMES[1:], duration=50)
    assert restore(tmp_path / source, "-o", tmp_path / "out", "--format", kind, "--weights", x2_weights) == 0
    assert line in " ".join(capsys.readouterr().out.split())


def test_it_is_said_once_for_many(tmp_path: Path, x2_weights: Path, capsys: pytest.CaptureFixture) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat")
    (tmp_path / "in").mkdir()
    for number in range(5):
        FRAMES[0].save(tmp_path / "in" / f"{number}.png", pnginfo=info)
    assert restore(tmp_path / "in", "-o", tmp_path / "out", "--format", "jpg", "--weights", x2_weights) == 0
    printed = capsys.readouterr().out
    assert printed.count("PNG text (no place in JPEG)") == 2  # for the first one, and with the last lines
    assert "  5 files: not in the result: PNG text (no place in JPEG)" in printed


@pytest.mark.parametrize("extension", ["bmp", "png", "webp", "tif"])
def test_alpha_is_kept_by_all_types_that_have_it(tmp_path: Path, x2_weights: Path, extension: str) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    assert restore(tmp_path / "a.png", "-o", tmp_path / f"b.{extension}", "--weights", x2_weights) == 0
    assert read_photo(tmp_path / f"b.{extension}").pixels.shape == (18, 24, 4)
    assert restore(tmp_path / f"b.{extension}", "-o", tmp_path / "again", "--weights", x2_weights) == 0


def test_opaque_alpha_is_no_reason_to_refuse(tmp_path: Path, x2_weights: Path) -> None:
    opaque = PIXELS.copy()
    opaque[:, :, 3] = 255
    Image.fromarray(opaque).save(tmp_path / "a.png")
    Image.fromarray(opaque[:, :, :3]).save(tmp_path / "b.png")
    for name in ("a", "b"):
        assert restore(tmp_path / f"{name}.png", "-o", tmp_path / f"{name}.jpg", "--weights", x2_weights) == 0
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()


@pytest.mark.parametrize(("kind", "width", "limit"), [("webp", 8192, 16383), ("jpg", 32751, 65500)])
def test_results_that_their_type_cannot_hold_are_told_before_any_work(
    tmp_path: Path, x2_weights: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch,
    kind: str, width: int, limit: int,
) -> None:  # fmt: skip
    computed = []
    real = Restorer.restore
    monkeypatch.setattr(Restorer, "restore", lambda self, image: computed.append(image) or real(self, image))
    Image.new("RGB", (width, 1)).save(tmp_path / f"wide.{kind}")
    arguments = (tmp_path / f"wide.{kind}", "-o", tmp_path / "out", "--weights", x2_weights)
    assert restore(*arguments) == 1
    assert computed == []
    assert f"the result has {2 * width}x2 pixels, and" in (printed := capsys.readouterr().out)
    assert f"holds at most {limit} a side; write TIFF or PNG" in printed


def test_what_headers_tell_is_told_before_the_first_image(
    tmp_path: Path, x2_weights: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said_by_then = []
    real = Restorer.restore

    def noticing(self: Restorer, image: object) -> object:
        said_by_then.append(capsys.readouterr().out)
        return real(self, image)

    monkeypatch.setattr(Restorer, "restore", noticing)
    FRAMES[0].save(tmp_path / "1.png")
    (tmp_path / "2.png").write_text("no image")
    assert restore(tmp_path, "-o", tmp_path / "out", "--weights", x2_weights) == 1
    assert "2.png: not an image" in said_by_then[0]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_names_that_a_console_has_no_letters_for(tmp_path: Path, x2_weights: Path, encoding: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "大きさ.png").write_text("no image")
    (tmp_path / "in" / "写真.heif").write_text("no image")
    FRAMES[0].save(tmp_path / "in" / "Größe ✓.png")
    done = subprocess.run(
        [sys.executable, "-m", "mambair", "restore", "in", "-o", "aus ✓", "--weights", str(x2_weights)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1 and b"Traceback" not in done.stdout + done.stderr
    assert b"restored 1, failed 2" in done.stdout
    assert (b"\\u5927" in done.stdout) == (encoding != "utf-8")
