"""scripts/gallery.py: the committed list is whole, pictures are made for what is there, and the page names the rest."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

from mambair.imaging.files import read_image
from mambair.weights.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]

specification = importlib.util.spec_from_file_location("gallery", ROOT / "scripts" / "gallery.py")
gallery = importlib.util.module_from_spec(specification)
specification.loader.exec_module(gallery)


class Repeats:
    """A network that repeats pixels and inverts them, so that both halves of a picture can be told apart."""

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def restore(self, photo: np.ndarray) -> np.ndarray:
        return 255 - photo.repeat(self.scale, axis=0).repeat(self.scale, axis=1)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the list, and a package that has what `serve` says."""
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "gallery.yml", tmp_path / "docs")
    monkeypatch.setattr(gallery, "load_model", lambda path, device: Repeats(TASKS[path.stem].scale))
    return tmp_path


def serve(monkeypatch: pytest.MonkeyPatch, tasks: list[str]) -> None:
    files = {task: Path(f"{task}.safetensors") for task in tasks}
    monkeypatch.setattr(gallery, "shipped_weights", lambda: files)
    monkeypatch.setattr(gallery, "served_by", files.get)


def test_every_task_has_three_photos_one_of_which_probably_fails() -> None:
    photos, tasks = gallery.read_list(ROOT / gallery.LIST)
    assert set(tasks) == set(TASKS) - {"sr", "photo"}
    for entries in tasks.values():
        assert [bool(entry.fails) for entry in entries] == [False, False, True]
    assert sum(entry.strip for entries in tasks.values() for entry in entries) == 4
    assert all(photo.keys() == {"shows", "address", "licence"} for photo in photos.values())


def test_all_pictures_and_the_strip(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, tasks = gallery.read_list(project / gallery.LIST)
    serve(monkeypatch, list(tasks))
    assert gallery.main(["--root", str(project)]) == 0
    pictures = {path.name for path in (project / gallery.FOLDER).iterdir()}
    assert pictures == {gallery.picture_name(task, number) for task in tasks for number in range(3)} | {gallery.STRIP}
    for name in pictures - {gallery.STRIP}:
        picture = read_image(project / gallery.FOLDER / name).astype(int)
        before, after = picture[:, : gallery.SIDE], picture[:, -gallery.SIDE :]
        assert picture.shape == (gallery.SIDE, 2 * gallery.SIDE + 4, 3)
        assert np.abs(before + after - 255).mean() < 12, "the same place on both sides"
    text = (project / gallery.PAGE).read_text(encoding="utf-8")
    assert text.count("![") == 21 and text.count("Probably fails") == 7 and "no network" not in text


def test_what_is_not_there_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    serve(monkeypatch, ["jpeg"])
    assert gallery.main(["--root", str(project)]) == 0
    assert sorted(path.name for path in (project / gallery.FOLDER).iterdir()) == [
        "jpeg_1.jpg",
        "jpeg_2.jpg",
        "jpeg_3.jpg",
    ]
    printed = capsys.readouterr().out
    assert "x4: no network in the package serves it" in printed and "x4, denoise, photo_x1 not made" in printed
    text = (project / gallery.PAGE).read_text(encoding="utf-8")
    assert text.count("![jpeg") == 3 == text.count("![") and text.count("no network for it in the package yet") == 6
    assert gallery.main(["--root", str(project), "--tasks", "x5"]) == 2


def test_the_committed_page_is_what_the_list_and_the_package_give() -> None:
    photos, tasks = gallery.read_list(ROOT / gallery.LIST)
    shipped = set(gallery.shipped_weights().values())
    names = {task: path.stem for task in tasks if (path := gallery.served_by(task)) in shipped and path}
    assert gallery.page(photos, tasks, names) == (ROOT / gallery.PAGE).read_text(encoding="utf-8")
    for task in names:
        for number in range(3):
            assert (ROOT / gallery.FOLDER / gallery.picture_name(task, number)).is_file()


def test_a_list_with_a_mistake(project: Path, capsys: pytest.CaptureFixture) -> None:
    path = project / gallery.LIST
    text = path.read_text(encoding="utf-8")
    for old, new, message in (
        ("photo: gravel", "photo: sand", "photo 'sand' does not stand under photos"),
        ("[95, 150, 60]", "[95, 150, 61]", "must give 240 pixels"),
        ("  x3:", "  sr:", "is no task with a scale"),
    ):
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        assert gallery.main(["--root", str(project)]) == 2
        assert message in capsys.readouterr().err
