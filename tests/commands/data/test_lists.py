"""LMDB databases and meta-info files."""

import shlex
from pathlib import Path

import numpy as np

from mambair.commands.data import main
from mambair.commands.data.command import build_parser
from mambair.data.image_sources import read_meta_info
from mambair.data.lmdb_store import LmdbSource
from mambair.imaging.files import decode_image, read_image


def test_lmdb_is_built_verified_and_not_overwritten(image_folder, tmp_path, capsys):
    folder = image_folder("HR", ("a.png", "b.png", "c.png"))
    assert main(["lmdb", str(folder), "--workers", "1"]) == 0
    database = LmdbSource(tmp_path / "HR.lmdb")
    assert database.names() == ["a", "b", "c"]
    stored = decode_image(database.read_bytes("b"), name="b")
    np.testing.assert_array_equal(stored, read_image(folder / "b.png"))
    assert main(["lmdb", "--verify", str(tmp_path / "HR.lmdb")]) == 0
    assert "all 3 images" in capsys.readouterr().out
    assert main(["lmdb", str(folder)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_meta_info_lists_names_and_sizes(image_folder, tmp_path, capsys):
    folder = image_folder("HR")
    output = tmp_path / "list.txt"
    assert main(["metainfo", str(folder), str(output)]) == 0
    assert output.read_text() == "a.png (130,118,3)\nb.png (130,118,3)\n"
    assert read_meta_info(output)[1].size == (130, 118, 3)
    assert main(["metainfo", str(folder), str(output)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["metainfo", str(folder), str(output), "--overwrite"]) == 0


def test_commands_of_the_data_page_are_understood():
    page = (Path(__file__).resolve().parents[3] / "datasets" / "README.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("mambair data ")]
    assert len(lines) >= 10
    for line in lines:
        assert build_parser().parse_args(shlex.split(line)[2:]).run
