"""What a user types becomes a list of files in order, each with a target of its own."""

import io
import os
from pathlib import Path

import pytest

from mambair.commands.restore.inputs import Failure, plan_jobs
from mambair.errors import UserError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in (
        "frame10.png",
        "frame2.jpg",
        "sub/a b.webp",
        "sub/ünïcode.ppm",
        "notes.txt",
        ".hidden.png",
        "clip.avi",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def plan(paths: list, output: Path = Path("out"), file_format: str = "same", stdin: str = ""):
    found = plan_jobs([str(path) for path in paths], output, file_format, io.StringIO(stdin))
    return found.jobs, found.failures


def targets(jobs) -> list[str]:
    return [str(job.target) for job in jobs]


def test_folders_are_searched_in_natural_order_and_keep_their_structure(photos: Path) -> None:
    jobs, failures = plan([photos])
    assert failures == []
    assert targets(jobs) == [
        "out/clip.mkv", "out/frame2.jpg", "out/frame10.png", "out/sub/a b.webp", "out/sub/ünïcode.png",
    ]  # fmt: skip
    assert [job.is_video for job in jobs] == [True, False, False, False, False]


def test_files_patterns_and_standard_input(photos: Path) -> None:
    jobs, _ = plan([photos / "frame10.png", photos / "**" / "*.webp"], file_format="tif")
    assert targets(jobs) == ["out/frame10.tif", "out/sub/a b.tif"]
    assert targets(plan([photos / "s*"])[0]) == ["out/sub/a b.webp", "out/sub/ünïcode.png"]
    assert targets(plan([photos / "sub" / "*.webp"])[0]) == ["out/a b.webp"]
    for separator in ("\n", "\0"):
        listed = separator.join([str(photos / "frame2.jpg"), str(photos / "sub" / "a b.webp"), ""])
        assert targets(plan(["-"], stdin=listed)[0]) == ["out/frame2.jpg", "out/a b.webp"]


def test_names_with_newlines_come_in_separated_by_nul(tmp_path: Path) -> None:
    odd = tmp_path / "two\nlines.png"
    odd.touch()
    assert targets(plan(["-"], stdin=f"{odd}\0")[0]) == ["out/two\nlines.png"]


def test_one_file_may_name_its_target(photos: Path, tmp_path: Path) -> None:
    assert targets(plan([photos / "frame2.jpg"], Path("better.png"))[0]) == ["better.png"]
    folder = tmp_path / "folder.png"
    folder.mkdir()
    assert targets(plan([photos / "frame2.jpg"], folder)[0]) == [str(folder / "frame2.jpg")]


@pytest.mark.parametrize(
    ("source", "output", "file_format", "message"),
    [
        ("frame2.jpg", "a.gif", "same", "-o a.gif: images are not written as '.gif'; use .bmp"),
        ("frame2.jpg", "a.mp4", "same", "-o a.mp4: images"),
        ("clip.avi", "a.png", "same", "-o a.png: videos are not written as '.png'; use .mkv, .mov, .mp4"),
        ("clip.avi", "a.webm", "same", "-o a.webm: videos"),
        ("frame2.jpg", "a.jpg", "png", "--format png contradict"),
        ("*", "a.png", "same", "-o a.png names a file, but there are 5 files"),
    ],
)
def test_an_output_of_an_impossible_kind(
    photos: Path, source: str, output: str, file_format: str, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        plan([photos / source], Path(output), file_format)
    assert str(caught.value).startswith(message) or message in str(caught.value)


def test_paths_that_lead_to_nothing_are_failures_and_the_rest_goes_on(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    jobs, failures = plan([photos / "frame2.jpg", "gone.png", "*.nothing", tmp_path / "empty"])
    assert targets(jobs) == ["out/frame2.jpg"]
    assert failures == [
        Failure("gone.png", "no such file or folder"),
        Failure("*.nothing", "no file matches this pattern"),
        Failure(str(tmp_path / "empty"), "no images or videos in this folder"),
    ]


def test_results_inside_the_folder_are_not_restored_again(photos: Path) -> None:
    (photos / "out").mkdir()
    (photos / "out" / "old.png").touch()
    jobs, _ = plan([photos], photos / "out")
    assert str(photos / "out" / "old.png") not in [str(job.source) for job in jobs] and len(jobs) == 5


def test_a_file_named_twice_is_restored_once_and_two_files_never_share_a_target(photos: Path) -> None:
    assert len(plan([photos, photos / "frame2.jpg"])[0]) == 5
    (photos / "frame10.jpg").touch()
    jobs, _ = plan([photos], file_format="png")
    assert targets(jobs)[1:4] == ["out/frame2.png", "out/frame10.jpg.png", "out/frame10.png"]
    (photos / "frame10.gif").touch()
    assert targets(plan([photos])[0])[2:5] == ["out/frame10.gif.png", "out/frame10.jpg", "out/frame10.png"]


def test_files_of_one_name_keep_the_folders_that_tell_them_apart(photos: Path) -> None:
    for folder in ("x/1", "x/2"):
        (photos / folder).mkdir(parents=True)
        (photos / folder / "same.png").touch()
    listed = [photos / "x" / "1" / "same.png", photos / "x" / "2" / "same.png", photos / "frame10.png"]
    assert targets(plan(listed)[0]) == ["out/1/same.png", "out/2/same.png", "out/frame10.png"]
    assert targets(plan([photos / "x" / "1", photos / "x" / "2"])[0]) == ["out/1/same.png", "out/2/same.png"]


def test_the_same_file_by_two_names_is_restored_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    assert targets(plan(["frame10.png", photos / "frame10.png", "sub/../frame2.jpg"])[0]) == [
        "out/frame10.png", "out/frame2.jpg",
    ]  # fmt: skip


def test_what_cannot_be_told_apart_is_an_error(photos: Path) -> None:
    for name in ("a.gif", "a.png", "a.gif.png"):
        (photos / name).touch()
    with pytest.raises(UserError, match=r"a\.gif.* and .*a\.gif.* would both be written to"):
        plan([photos])


def test_an_empty_list_is_an_error() -> None:
    with pytest.raises(UserError, match="standard input"):
        plan(["-"])


def test_pasted_texts_and_lists_in_other_encodings_end_nothing(photos: Path) -> None:
    long = "x" * 5000
    jobs, failures = plan([long, photos / "frame2.jpg", f"{long}/[a]*"])
    assert targets(jobs) == ["out/frame2.jpg"]
    assert [len(failure.path) < 300 and "(5000 characters)" in failure.path for failure in failures] == [True, False]
    assert all(len(failure.path) < 300 for failure in failures)
    odd = photos / "caf\udce9.png"  # Latin-1
    odd.touch()
    listed = io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf" + os.fsencode(odd) + b"\r\ngone.png\r\n"), encoding="utf-8")
    found = plan_jobs(["-"], Path("out"), "same", listed)
    jobs, failures = found.jobs, found.failures
    assert [job.source for job in jobs] == [odd] and [failure.path for failure in failures] == ["gone.png"]
