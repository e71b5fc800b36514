"""Restarting, not overwriting, running in parallel and reporting failures, seen through `mambair data lr`."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mambair.commands.data import main
from mambair.imaging.files import read_image, write_image


def run(folder, *arguments: str) -> int:
    return main(["lr", str(folder), "--scale", "2", "--workers", "1", *arguments])


def test_a_second_run_makes_only_what_is_missing(image_folder):
    folder = image_folder("HR")
    assert run(folder) == 0
    first, second = (folder.parent / "LR_bicubic" / "X2" / f"{name}x2.png" for name in "ab")
    stamp = first.stat().st_mtime_ns
    second.unlink()
    assert run(folder) == 0
    assert second.is_file() and first.stat().st_mtime_ns == stamp


def test_other_settings_do_not_mix_with_the_results(image_folder, capsys):
    folder = image_folder("HR")
    assert run(folder) == 0
    assert run(folder, "--filename-tmpl", "{}_LRBI_x{scale}") == 2
    assert "made with other settings" in capsys.readouterr().err
    assert not (folder.parent / "LR_bicubic" / "X2" / "a_LRBI_x2.png").exists()


def test_foreign_files_are_not_replaced_unless_told(image_folder, capsys, photo):
    folder = image_folder("HR")
    precious = folder.parent / "LR_bicubic" / "X2" / "ax2.png"
    write_image(precious, photo)
    assert run(folder) == 2
    assert "has files already" in capsys.readouterr().err
    np.testing.assert_array_equal(read_image(precious), photo)
    assert run(folder, "--overwrite") == 0
    assert read_image(precious).shape == (65, 59, 3)


def test_failures_are_listed_and_do_not_stop_the_rest(image_folder, capsys):
    folder = image_folder("HR", ("a.png", "b.png", "c.png"))
    content = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(content[: len(content) // 2])
    assert run(folder) == 2
    error = capsys.readouterr().err
    assert "1 of 3 images failed" in error and str(folder / "b.png") in error
    lr = folder.parent / "LR_bicubic" / "X2"
    assert (lr / "ax2.png").is_file() and (lr / "cx2.png").is_file() and not (lr / "bx2.png").exists()
    (folder / "b.png").write_bytes(content)
    assert run(folder) == 0
    assert (lr / "bx2.png").is_file()


def test_two_inputs_for_one_output_are_refused(image_folder, capsys):
    folder = image_folder("HR", ("a.png", "a.bmp"))
    assert run(folder) == 2
    assert "would both be written" in capsys.readouterr().err


def test_processes_give_the_same_files(image_folder):
    folder = image_folder("HR", tuple(f"{n}.png" for n in range(4)))
    assert run(folder, "--workers", "2", "--output", str(folder.parent / "parallel")) == 0
    assert run(folder, "--output", str(folder.parent / "serial")) == 0
    for path in sorted((folder.parent / "serial" / "X2").glob("*.png")):
        assert path.read_bytes() == (folder.parent / "parallel" / "X2" / path.name).read_bytes()
    assert len(list((folder.parent / "parallel" / "X2").glob("*.png"))) == 4


def test_a_run_that_made_nothing_leaves_the_folder_free(image_folder, capsys):
    folder = image_folder("HR", ("a.png",))
    content = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(content[:100])
    assert run(folder) == 2
    (folder / "a.png").write_bytes(content)
    assert run(folder, "--filename-tmpl", "{}_LRBI_x{scale}") == 0
    assert (folder.parent / "LR_bicubic" / "X2" / "a_LRBI_x2.png").is_file()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_a_killed_run_leaves_no_part_of_a_file_and_no_process(image_folder):
    folder = image_folder("HR", ("000.png",))
    for number in range(1, 400):
        os.link(folder / "000.png", folder / f"{number:03d}.png")
    lr = folder.parent / "LR_bicubic" / "X2"
    arguments = [sys.executable, "-m", "mambair", "data", "lr", str(folder), "--scale", "2", "--workers", "2"]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, cwd=folder)
    wait_until(lambda: any(not path.name.startswith(".") for path in lr.glob("*.png")))
    family = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(family) >= 2
    wait_until(lambda: not any(alive(pid) for pid in family))
    files = sorted(path for path in lr.glob("*.png") if not path.name.startswith("."))  # temporary files have a dot
    assert 0 < len(files) < 400
    stamps = {path: path.stat().st_mtime_ns for path in files}
    assert run(folder) == 0
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    expected = read_image(lr / "399x2.png")
    assert len(list(lr.glob("*.png"))) == 400
    assert all(np.array_equal(read_image(path), expected) for path in files)
    assert not list(lr.glob(".tmp-*"))


def wait_until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children] + [grandchild for child in children for grandchild in descendants(child)]


def alive(pid: int) -> bool:
    """Whether a process runs; zombies, which nobody may be there to bury, do not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
