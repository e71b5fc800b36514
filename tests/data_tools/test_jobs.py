"""Restarting, not overwriting, running in parallel and reporting failures, seen through `mambair data lr`."""

import numpy as np

from mambair.data_tools import main
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
