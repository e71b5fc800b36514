"""Folders as people have them: links, other types, what is left out and said."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mambair.commands.restore import found, inputs
from mambair.commands.restore.command import main
from mambair.commands.restore.found import Search
from mambair.imaging import optional_formats
from mambair.imaging.photo import Photo, read_photo, write_photo

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
HEIC = b"\0\0\0\x18ftypheic" + bytes(40)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    write_photo(folder / "a.png", Photo(PIXELS))
    return folder


def restore(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def names(files: list[Path], folder: Path) -> list[str]:
    return [str(file.relative_to(folder)) for file in files]


def test_linked_folders_are_searched_as_others(photos: Path, tmp_path: Path, x2_weights: Path) -> None:
    write_photo(tmp_path / "real" / "sub" / "b.png", Photo(PIXELS))
    (photos / "album").symlink_to("../real")
    assert restore(photos, "-o", tmp_path / "out", "--weights", x2_weights) == 0
    assert (tmp_path / "out" / "album" / "sub" / "b.png").is_file() and (tmp_path / "out" / "a.png").is_file()


def test_circles_of_links_end(photos: Path, tmp_path: Path) -> None:
    (photos / "sub").mkdir()
    (photos / "sub" / "up").symlink_to("..")
    (photos / "self").symlink_to(".")
    search = Search(tmp_path / "out")
    assert names(search.below(photos), photos) == ["a.png"]
    assert [(why, str(path.relative_to(photos))) for why, path in search.left_out] == [
        (found.CIRCLES, "self"),
        (found.CIRCLES, "sub/up"),
    ]


def test_results_behind_a_link_are_not_restored_again(photos: Path) -> None:
    write_photo(photos / "out" / "old.png", Photo(PIXELS))
    (photos / "link").symlink_to("out")
    (photos / "old.png").symlink_to("out/old.png")
    assert names(Search(photos / "out").below(photos), photos) == ["a.png"]


def test_jpeg_by_all_its_names(photos: Path, tmp_path: Path, x2_weights: Path) -> None:
    for name in ("b.jfif", "c.jpe", "d.JPEG"):
        Image.fromarray(PIXELS).save(photos / name, "JPEG")
    assert restore(photos, "-o", tmp_path / "out", "--weights", x2_weights) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "b.jfif", "c.jpe", "d.JPEG"}
    with Image.open(tmp_path / "out" / "c.jpe") as image:
        assert image.format == "JPEG"


def test_several_pictures_in_a_jpeg(photos: Path, tmp_path: Path, x2_weights: Path, capsys) -> None:
    image = Image.fromarray(PIXELS)
    image.save(photos / "b.mpo", save_all=True, append_images=[image])
    assert restore(photos, "-o", tmp_path / "out", "--weights", x2_weights) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "b.png"}
    assert "further images of a JPEG" in " ".join(capsys.readouterr().out.split())


def test_avif_is_read_where_pillow_reads_it(photos: Path, tmp_path: Path, x2_weights: Path) -> None:
    if "AVIF" not in optional_formats.openable():
        pytest.skip("this Pillow has no AVIF")
    Image.fromarray(PIXELS).save(photos / "b.avif", quality=95)
    assert restore(photos, "-o", tmp_path / "out", "--weights", x2_weights) == 0
    assert read_photo(tmp_path / "out" / "b.png").pixels.shape == (18, 24, 3)


def test_heic_without_its_package_is_counted_and_named(
    photos: Path, tmp_path: Path, x2_weights: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "reads_heic", lambda: False)
    for name in ("b.heic", "c.HEIC", "d.hif"):
        (photos / name).write_bytes(HEIC)
    Image.fromarray(PIXELS).save(photos / "e.heic", "JPEG")  # as phones and programs name them
    assert restore(photos, "-o", tmp_path / "out", "--weights", x2_weights) == 1
    printed = capsys.readouterr().out
    assert "restored 2, failed 1" in printed
    assert "b.heic and 2 more: HEIC photos are read with one more package: pip install 'mambair[heic]'" in printed
    assert (tmp_path / "out" / "e.png").is_file()


def test_what_is_left_out_of_a_folder_is_said(
    photos: Path, tmp_path: Path, x2_weights: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("b.CR2", "c.psd", "d.wmv", "notes.txt", ".hidden.png", ".DS_Store", "f.nef", "g.dng", "h.arw"):
        (photos / name).write_bytes(b"something")
    (photos / "gone.jpg").symlink_to("nowhere.jpg")
    assert restore(photos, "-o", tmp_path / "out", "--weights", x2_weights) == 0
    printed = capsys.readouterr().out
    folder = f"{photos}/"
    assert f"left out: {found.RAW_PHOTOS}: {folder}b.CR2, {folder}f.nef, {folder}g.dng and 1 more" in printed
    assert f"left out: {found.OTHER_IMAGES}: {folder}c.psd" in printed
    assert f"left out: {found.OTHER_VIDEOS}: {folder}d.wmv" in printed
    assert f"left out: {found.OTHER_FILES}: {folder}notes.txt" in printed
    assert f"left out: {found.BROKEN_LINKS}: {folder}gone.jpg" in printed
    assert "hidden" not in printed and "DS_Store" not in printed


def test_folders_that_cannot_be_listed_are_failures(
    photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (photos / "private").mkdir()
    scandir = found.os.scandir

    def refusing(folder: Path):
        if Path(folder).name == "private":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(found.os, "scandir", refusing)
    search = Search(tmp_path / "out")
    assert names(search.below(photos), photos) == ["a.png"]
    assert [path.name for path, _ in search.unreadable] == ["private"]
