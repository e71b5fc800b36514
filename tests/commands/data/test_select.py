"""Selecting photos: each reason to leave one out, and that nothing is lost, changed or overwritten."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mambair.commands.data import main
from mambair.imaging.files import write_image


@pytest.fixture
def photos(tmp_path: Path, photo: np.ndarray) -> Path:
    """One photo of each kind: 118x130 pixels, if its name does not say more."""
    folder = tmp_path / "photos"
    folder.mkdir()
    image = Image.fromarray(photo)

    def save(name: str, picture: Image.Image = image, quality: int = 95, subsampling: str = "4:4:4") -> None:
        picture.save(folder / name, "JPEG", quality=quality, subsampling=subsampling)

    save("good.JPEG")
    save("turned.jpg", image.transpose(Image.Transpose.ROTATE_90))
    save("small.jpg", image.crop((0, 0, 118, 99)))
    save("rough.jpg", quality=89)
    save("halved.jpg", subsampling="4:2:0")
    save("gray.jpg", image.convert("L"))
    write_image(folder / "lossless.png", photo)
    (folder / "broken.jpg").write_bytes((folder / "good.JPEG").read_bytes()[:60])
    (folder / "notes.txt").write_text("no image")
    return folder


STRICT = ["--min-size", "120x100", "--min-quality", "90", "--full-chroma"]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_each_photo_is_taken_or_left_out_for_a_reason(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    target = tmp_path / "chosen"
    assert main(["select", str(photos), "-o", str(target), *STRICT, "--workers", "1"]) == 0
    assert names(target) == {"good.JPEG", "turned.jpg", "lossless.png"}
    for name in names(target):
        assert (target / name).read_bytes() == (photos / name).read_bytes()
    printed = capsys.readouterr().out
    for line in (
        "left out 1, smaller than 120x100 pixels: small.jpg",
        "left out 1, JPEG of quality below 90: rough.jpg",
        "left out 1, JPEG with reduced chroma: halved.jpg",
        "left out 1, gray: gray.jpg",
        "left out 1, cannot be read as an image: broken.jpg",
        "3 of 8 images are selected",
    ):
        assert line in printed
    assert len(names(photos)) == 9, "nothing was taken away"


@pytest.mark.parametrize(
    ("flags", "more"),
    [
        ([], {"small.jpg", "rough.jpg", "halved.jpg", "gray.jpg"}),
        (["--color"], {"small.jpg", "rough.jpg", "halved.jpg"}),
        (["--min-quality", "90"], {"small.jpg", "halved.jpg", "gray.jpg"}),
        (["--min-size", "100x120"], {"rough.jpg", "halved.jpg", "gray.jpg"}),
        (["--without", "good.JPEG", "--full-chroma"], {"small.jpg", "rough.jpg"}),
    ],
)
def test_each_condition_alone(flags: list[str], more: set[str], photos: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    assert main(["select", str(photos), "--list", str(listed), *flags]) == 0
    expected = {"good.JPEG", "turned.jpg", "lossless.png"} - ({"good.JPEG"} if "--without" in flags else set())
    assert set(listed.read_text().splitlines()) == expected | more
    assert main(["select", str(photos), "--list", str(listed), *flags]) == 2, "a list is not overwritten"


def test_links_lead_to_the_photos_and_mend_themselves(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "links"
    arguments = ["select", str(photos), "-o", str(target), "--link", *STRICT, "--workers", "1"]
    assert main(arguments) == 0
    link = target / "good.JPEG"
    assert link.is_symlink() and link.resolve() == (photos / "good.JPEG").resolve()
    link.unlink()
    link.symlink_to(tmp_path / "gone")
    assert main(arguments) == 0
    assert link.resolve() == (photos / "good.JPEG").resolve()


def test_a_stopped_run_goes_on_and_nothing_is_mixed(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    target = tmp_path / "chosen"
    arguments = ["select", str(photos), "-o", str(target), "--workers", "1"]
    assert main([*arguments, *STRICT]) == 0
    (target / "turned.jpg").unlink()
    assert main([*arguments, *STRICT]) == 0
    assert "1 images done, 2 were there before" in capsys.readouterr().out
    assert main([*arguments, *STRICT, "--without", "good.JPEG"]) == 2
    assert "has 1 files that are not selected now (good.JPEG)" in capsys.readouterr().err
    other = tmp_path / "other"
    write_image(other / "own.png", np.zeros((4, 4, 3), np.uint8))
    assert main(["select", str(photos), "-o", str(other)]) == 2
    assert names(other) == {"own.png"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--min-size", "480"], "expected two sides such as 480x320"),
        (["--min-quality", "101"], "invalid choice"),
        (["--link"], "name it with -o"),
        (["--without", "302003.jpg"], "has no image of this name"),
        (["--min-size", "9000x9000", "-o", "nowhere"], "nothing was written"),
    ],
)
def test_mistakes(flags: list[str], message: str, photos: Path, capsys: pytest.CaptureFixture) -> None:
    try:
        code = main(["select", str(photos), *flags])
    except SystemExit as stop:
        code = stop.code
    assert code == 2 and message in capsys.readouterr().err
    assert not Path("nowhere").exists()


def test_a_folder_without_images(image_folder: Callable[..., Path], capsys: pytest.CaptureFixture) -> None:
    folder = image_folder("x").parent
    assert main(["select", str(folder)]) == 2
    assert "has no images (sub-folders are not searched)" in capsys.readouterr().err
