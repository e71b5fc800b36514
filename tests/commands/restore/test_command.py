"""The restore command on files: depth, alpha, profile, existing results, bad files, exit codes."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mambair import load_model
from mambair.commands.restore.command import main
from mambair.commands.restore.inputs import Job
from mambair.commands.restore.run import WAITING_BYTES, WRITERS, write_result, writes_ahead
from mambair.imaging.photo import Photo, read_photo, write_photo

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def photos(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder of small photos of all kinds, 12x9 pixels."""
    folder = tmp_path / "in"
    for name, channels, dtype in [
        ("rgb.png", 3, np.uint8),
        ("gray.png", 1, np.uint8),
        ("alpha.png", 4, np.uint8),
        ("deep.png", 3, np.uint16),
        ("deep.tif", 1, np.uint16),
        ("sub/photo.jpg", 3, np.uint8),
        ("sub/photo.webp", 3, np.uint8),
        ("sub/photo.bmp", 3, np.uint8),
    ]:
        pixels = rng.integers(0, np.iinfo(dtype).max, (9, 12, channels), dtype=dtype)
        write_photo(folder / name, Photo(pixels))
    return folder


def restore(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def test_a_folder_of_everything(photos: Path, tmp_path: Path, x2_weights: Path) -> None:
    out = tmp_path / "out"
    assert restore(photos, "-o", out, "--weights", x2_weights, "--device", "cpu") == 0
    model = load_model(x2_weights, device="cpu")
    sources = [path for path in photos.rglob("*") if path.is_file()]
    assert len(sources) == 8
    for source in sources:
        before, after = read_photo(source), read_photo(out / source.relative_to(photos))
        assert after.pixels.shape == (18, 24, before.pixels.shape[2]) and after.pixels.dtype == before.pixels.dtype
        if source.suffix in (".png", ".tif", ".bmp"):
            np.testing.assert_array_equal(after.pixels, model.restore(before.pixels))


def test_batches_and_tiles_give_the_same_files(photos: Path, tmp_path: Path, gray_weights: Path) -> None:
    for name, extra in {"one": (), "four": ("--batch", "4")}.items():
        assert restore(photos, "-o", tmp_path / name, "--weights", gray_weights, *extra) == 0
    for path in (tmp_path / "one").rglob("*.png"):
        other = tmp_path / "four" / path.relative_to(tmp_path / "one")
        difference = read_photo(path).pixels.astype(int) - read_photo(other).pixels
        assert np.abs(difference).max() <= 1


def test_existing_results_are_kept_unless_told(photos: Path, tmp_path: Path, x2_weights: Path, capsys) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "rgb.png").write_bytes(b"mine")
    common = (photos, "-o", out, "--weights", x2_weights)
    assert restore(*common) == 2
    assert "--skip-existing" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["rgb.png"]
    assert restore(*common, "--skip-existing") == 0
    assert "restored 7, skipped 1" in capsys.readouterr().out
    assert (out / "rgb.png").read_bytes() == b"mine"
    assert restore(*common, "--overwrite") == 0
    assert read_photo(out / "rgb.png").pixels.shape == (18, 24, 3)


def test_bad_files_are_reported_and_the_rest_goes_on(photos: Path, tmp_path: Path, x2_weights: Path, capsys) -> None:
    (photos / "broken [1].png").write_bytes((photos / "rgb.png").read_bytes()[:60])
    assert restore(photos, "gone.png", "-o", tmp_path / "out", "--weights", x2_weights) == 1
    printed = capsys.readouterr().out
    assert "restored 8, failed 2" in printed
    assert "broken [1].png" in printed and "gone.png" in printed and "Traceback" not in printed
    assert not (tmp_path / "out" / "broken [1].png").exists()


def test_formats_bits_and_a_named_target(photos: Path, tmp_path: Path, x2_weights: Path) -> None:
    common = ("--weights", x2_weights)
    assert restore(photos / "rgb.png", "-o", tmp_path / "named.tif", "--bits", "16", *common) == 0
    deep = read_photo(tmp_path / "named.tif").pixels
    assert deep.dtype == np.uint16 and len(np.unique(deep)) > 256
    assert restore(photos / "deep.png", "-o", tmp_path, "--bits", "8", *common) == 0
    assert read_photo(tmp_path / "deep.png").pixels.dtype == np.uint8
    assert restore(photos / "rgb.png", "-o", tmp_path / "low.jpg", "--quality", "10", *common) == 0
    assert restore(photos / "rgb.png", "-o", tmp_path / "high.jpg", "--quality", "98", *common) == 0
    assert (tmp_path / "low.jpg").stat().st_size < (tmp_path / "high.jpg").stat().st_size
    # JPEG has no transparency: that file fails, and says so.
    assert restore(photos / "alpha.png", "-o", tmp_path / "flat", "--format", "jpg", *common) == 1


def test_the_orientation_is_applied_and_the_profile_kept(tmp_path: Path, x2_weights: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4), (200, 10, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert restore(tmp_path / "a.jpg", "-o", tmp_path / "out", "--weights", x2_weights) == 0
    with Image.open(tmp_path / "out" / "a.jpg") as image:
        assert image.size == (8, 16) and image.getexif().get(0x0112, 1) == 1


def test_an_interrupted_run_leaves_no_parts_and_resumes(
    photos: Path, tmp_path: Path, x2_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(job, photo, quality) -> tuple[str, ...]:
        if job.target.name == "gray.png":
            raise KeyboardInterrupt
        return write_result(job, photo, quality)

    monkeypatch.setattr("mambair.commands.restore.run.write_result", interrupted)
    common = (photos, "-o", tmp_path / "out", "--weights", x2_weights)
    assert restore(*common) == 130
    done = {path.name for path in (tmp_path / "out").iterdir()}
    assert done >= {"alpha.png", "deep.png", "deep.tif"}  # all that was computed before it
    assert all(read_photo(tmp_path / "out" / name).pixels.shape[:2] == (18, 24) for name in done - {"sub"})
    monkeypatch.setattr("mambair.commands.restore.run.write_result", write_result)
    assert restore(*common, "--skip-existing") == 0
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 8


def test_a_result_that_cannot_be_written_fails_alone(photos: Path, tmp_path: Path, x2_weights: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("a file where a folder is needed")
    assert restore(photos, "-o", tmp_path / "out", "--weights", x2_weights) == 1
    assert (tmp_path / "out" / "rgb.png").exists()


def test_results_that_could_not_be_written_at_all_end_the_command_before_the_work(
    photos: Path, tmp_path: Path, x2_weights: Path, capsys
) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    assert restore(photos, "-o", tmp_path / "out", "--weights", x2_weights) == 2
    assert "cannot be made a folder" in capsys.readouterr().err
    assert restore(photos / "alpha.png", "-o", tmp_path / "flat.jpg", "--weights", x2_weights) == 1
    assert "alpha.png: " in (printed := capsys.readouterr().out) and "write PNG, WebP or TIFF" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--weights", "gone.pth"), "gone.pth"),
        (("--weights", "lightSR_x2"), "mambair weights get lightSR_x2"),
        (("--weights", "lightSR_x22"), "did you mean 'lightSR_x2'"),
        (("--weights", "hf://owner"), "hf://owner/repo/file"),
        (("--task", "denoise", "--noise", "77"), "--task denoise --noise 77"),
        (("--device", "tpu"), "device"),
    ],
)
def test_wrong_arguments_end_with_one_line(
    photos: Path, tmp_path: Path, x2_weights: Path, capsys, arguments, message
) -> None:
    weights = () if arguments[0] in ("--weights", "--task") else ("--weights", x2_weights)
    assert restore(photos, "-o", tmp_path / "out", *weights, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [("--tile", "0"), ("--tile", "big"), ("--batch", "0"), ("--quality", "101")])
def test_argparse_refuses_wrong_values(photos: Path, option: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        restore(photos, *option)
    assert exit_info.value.code == 2


@pytest.mark.parametrize(
    ("bytes_each", "count"),
    [(3, WRITERS), (WAITING_BYTES // WRITERS, WRITERS), (WAITING_BYTES // 2, 2), (2 * WAITING_BYTES, 1)],
)
def test_fewer_large_results_wait_to_be_written(tmp_path: Path, bytes_each: int, count: int) -> None:
    pixels = np.broadcast_to(np.uint8(0), (1, bytes_each, 1))
    assert writes_ahead([(Job(tmp_path, tmp_path), Photo(pixels))]) == count
    assert writes_ahead([]) == WRITERS


def test_the_entry_file_runs_from_a_checkout(photos: Path, tmp_path: Path, x2_weights: Path) -> None:
    command = [sys.executable, str(ROOT / "mambair" / "restore.py"), "-", "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--weights", str(x2_weights), "--tile", "none", "--ensemble"],
        input=f"{photos / 'rgb.png'}\n",
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"restored 1 in \d+\.\d s; results: ", done.stdout) and (tmp_path / "out" / "rgb.png").exists()
