"""Results never take the place of photos, nor of what another process wrote, and are not restored again."""

from pathlib import Path

import numpy as np
import pytest

from mambair.commands.restore import run as restore_run
from mambair.commands.restore.command import main
from mambair.imaging.photo import Photo, write_photo


@pytest.fixture
def photos(tmp_path: Path, rng: np.random.Generator) -> Path:
    for name in ("a.png", "b.png", "sub/a.png"):
        write_photo(tmp_path / "in" / name, Photo(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)))
    return tmp_path / "in"


@pytest.fixture
def restore(x2_weights: Path):
    return lambda *arguments: main([*map(str, arguments), "--weights", str(x2_weights)])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sizes(folder: Path) -> dict[str, int]:
    found = {}
    for name, content in contents(folder).items():
        found[name] = int.from_bytes(content[16:20], "big")  # a PNG's width
    return found


@pytest.mark.parametrize("option", [(), ("--overwrite",), ("--skip-existing",)])
@pytest.mark.parametrize(
    ("source", "output"), [(".", "."), ("a.png", "."), ("a.png", "a.png"), ("sub", "."), (".", "sub"), ("*.png", ".")]
)
def test_photos_stay_what_they_are(photos: Path, restore, capsys, option, source: str, output: str) -> None:
    before = contents(photos)
    assert restore(photos / source, "-o", photos / output, *option) == 2
    error = capsys.readouterr().err
    assert "pass another folder after -o" in error and len(error.splitlines()) == 1
    assert contents(photos) == before


def test_a_photo_under_another_name_is_known(photos: Path, tmp_path: Path, restore) -> None:
    (tmp_path / "link").symlink_to(photos, target_is_directory=True)
    before = contents(photos)
    assert restore(photos, "-o", tmp_path / "link", "--overwrite") == 2
    assert contents(photos) == before


@pytest.mark.parametrize("place", ["in/restored", "in/sub/restored", "in/sub"])
def test_results_below_the_photos_are_not_restored_again(photos: Path, tmp_path: Path, restore, place: str) -> None:
    if place == "in/sub":
        (photos / "sub" / "a.png").unlink()
    expected = set(contents(photos))
    assert restore(photos, "-o", tmp_path / place) == 0
    assert restore(photos, "-o", tmp_path / "out") == 0
    assert set(contents(tmp_path / "out")) == expected
    assert set(sizes(tmp_path / "out").values()) == {24}


def test_results_of_single_photos_are_known_too(photos: Path, tmp_path: Path, restore) -> None:
    assert restore(photos / "a.png", "-o", photos / "better") == 0
    assert restore(photos, "-o", tmp_path / "out") == 0
    assert "better/a.png" not in contents(tmp_path / "out") and len(contents(tmp_path / "out")) == 3


@pytest.mark.parametrize("pattern", ["**/*.png", "*/*.png", "*"])
def test_patterns_do_not_find_results(photos: Path, tmp_path: Path, restore, pattern: str) -> None:
    for output in (photos / "sub" / "out", photos / "out"):
        assert restore(photos / "**/*.png", "-o", output) == 0
        assert set(contents(output)) == {"a.png", "b.png", "sub/a.png"}
    before = contents(photos)
    assert restore(photos / "**/*.png", "-o", photos / "out", "--skip-existing") == 0
    assert contents(photos) == before
    assert restore(photos / pattern, "-o", tmp_path / "out") == 0
    assert set(contents(tmp_path / "out")) == {"sub/a.png"} | ({"a.png", "b.png"} if pattern != "*/*.png" else set())
    assert set(sizes(tmp_path / "out").values()) == {24}
    assert restore(photos / "out/*.png", "-o", tmp_path / "again") == 0  # named, as a folder may be
    assert set(contents(tmp_path / "again")) == {"a.png", "b.png"}


def test_a_result_named_beside_its_photo_is_none(photos: Path, tmp_path: Path, restore) -> None:
    assert restore(photos / "a.png", "-o", photos / "a_x2.png") == 0
    assert restore(photos / "a.png", "-o", photos / "a_x2.png", "--overwrite") == 0
    assert restore(photos, "-o", tmp_path / "out") == 0
    assert set(contents(tmp_path / "out")) == {"a.png", "b.png", "sub/a.png"}


def test_results_of_another_type_in_the_same_folder(photos: Path, tmp_path: Path, restore, capsys) -> None:
    assert restore(photos, "-o", photos, "--format", "tif") == 0
    assert restore(photos, "-o", tmp_path / "out") == 0
    assert set(contents(tmp_path / "out")) == {"a.png", "b.png", "sub/a.png"}
    assert "3 results of earlier runs in it are left out" in capsys.readouterr().out
    assert restore(photos, "-o", photos, "--format", "tif") == 2
    assert restore(photos, "-o", photos, "--format", "tif", "--skip-existing") == 0
    assert restore(photos, "-o", photos, "--format", "tif", "--overwrite") == 0


def test_a_run_below_the_photos_can_be_gone_on_with(photos: Path, restore, capsys) -> None:
    assert restore(photos, "-o", photos / "restored") == 0
    (photos / "restored" / "b.png").unlink()
    assert restore(photos, "-o", photos / "restored", "--skip-existing") == 0
    assert "restored 1, skipped 2" in capsys.readouterr().out


def test_results_can_be_restored_once_more_when_named(photos: Path, tmp_path: Path, restore) -> None:
    assert restore(photos, "-o", photos / "restored") == 0
    assert restore(photos / "restored", "-o", tmp_path / "twice") == 0
    assert set(sizes(tmp_path / "twice").values()) == {48}


def test_folders_apart_get_nothing_but_results(photos: Path, tmp_path: Path, restore) -> None:
    assert restore(photos, "-o", tmp_path / "out") == 0
    assert {path.name for path in tmp_path.iterdir()} >= {"in", "out"}
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize(("option", "code"), [((), 1), (("--skip-existing",), 0), (("--overwrite",), 1)])
@pytest.mark.parametrize("moment", ["write_result", "read_photo"])
def test_what_another_process_writes_meanwhile_is_left_to_it(
    photos: Path, tmp_path: Path, restore, monkeypatch: pytest.MonkeyPatch, capsys, option, code: int, moment: str
) -> None:
    out = tmp_path / "out"
    if option == ("--overwrite",):
        assert restore(photos, "-o", out) == 0
    original = getattr(restore_run, moment)

    def with_another(*arguments):
        out.mkdir(exist_ok=True)
        (out / "b.png").write_bytes(b"theirs")
        return original(*arguments)

    monkeypatch.setattr(restore_run, moment, with_another)
    capsys.readouterr()
    assert restore(photos, "-o", out, *option) == code
    printed = capsys.readouterr().out
    assert (out / "b.png").read_bytes() == b"theirs"
    told = "restored 2, skipped 1" if code == 0 else "restored 2, failed 1"
    assert told in printed
    assert code == 0 or "another process wrote" in printed
