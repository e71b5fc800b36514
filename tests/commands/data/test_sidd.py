"""SIDD's two forms: full-size pairs in folders, and blocks in MATLAB files."""

import numpy as np
import pytest
import scipy.io

from mambair.commands.data import main
from mambair.commands.data.blocks import read_sidd_blocks
from mambair.imaging.files import read_image, write_image


@pytest.fixture
def medium(tmp_path, photo):
    """Two scenes of SIDD-Medium's layout; the noisy images are brighter by 10."""
    for scene, number in (("0001_001_S6_00100_00060_3200_L", "010"), ("0002_001_S6_00100_00020_3200_N", "011")):
        folder = tmp_path / "SIDD_Medium_Srgb" / "Data" / scene
        write_image(folder / f"{scene[:4]}_GT_SRGB_{number}.PNG", photo // 2)
        write_image(folder / f"{scene[:4]}_NOISY_SRGB_{number}.PNG", photo // 2 + 10)
    return tmp_path / "SIDD_Medium_Srgb"


def test_crops_of_the_full_size_pairs(medium, tmp_path, photo):
    arguments = [str(medium), str(tmp_path / "train"), "--crop-size", "64", "--step", "48", "--workers", "1"]
    assert main(["sidd", *arguments]) == 0
    truths = sorted((tmp_path / "train" / "target_crops").glob("*.png"))
    noisy = sorted((tmp_path / "train" / "input_crops").glob("*.png"))
    assert [path.name for path in truths] == [path.name for path in noisy]
    assert len(truths) == 2 * 3 * 3 and truths[0].name == "0001_010_s001.png"
    np.testing.assert_array_equal(read_image(truths[8]), photo[-64:, -64:] // 2)
    for truth, partner in zip(truths, noisy, strict=True):
        np.testing.assert_array_equal(read_image(truth) + 10, read_image(partner))


def test_missing_partner_is_named(medium, tmp_path, capsys):
    missing = next(medium.rglob("0002_NOISY*"))
    missing.unlink()
    assert main(["sidd", str(medium), str(tmp_path / "train")]) == 2
    assert str(missing) in capsys.readouterr().err


def test_a_folder_without_pairs_is_explained(tmp_path, capsys):
    assert main(["sidd", str(tmp_path), str(tmp_path / "train")]) == 2
    assert "SIDD_Medium_Srgb" in capsys.readouterr().err


@pytest.fixture
def blocks(tmp_path) -> np.ndarray:
    """3 images of 2 blocks, saved as SIDD's validation files."""
    noisy = np.random.default_rng(0).integers(256, size=(3, 2, 16, 16, 3), dtype=np.uint8)
    scipy.io.savemat(tmp_path / "ValidationNoisyBlocksSrgb.mat", {"ValidationNoisyBlocksSrgb": noisy})
    scipy.io.savemat(tmp_path / "ValidationGtBlocksSrgb.mat", {"ValidationGtBlocksSrgb": noisy // 2})
    return noisy


def test_validation_blocks_become_pairs(blocks, tmp_path):
    source = tmp_path / "ValidationNoisyBlocksSrgb.mat"
    np.testing.assert_array_equal(read_sidd_blocks(source), blocks)
    assert main(["sidd", str(source), str(tmp_path / "val"), "--workers", "1"]) == 0
    assert len(list((tmp_path / "val" / "input_crops").glob("*.png"))) == 6
    np.testing.assert_array_equal(read_image(tmp_path / "val" / "input_crops" / "0003_02.png"), blocks[2, 1])
    np.testing.assert_array_equal(read_image(tmp_path / "val" / "target_crops" / "0003_02.png"), blocks[2, 1] // 2)


def test_mistaken_mat_files_are_explained(blocks, tmp_path, capsys):
    (tmp_path / "ValidationGtBlocksSrgb.mat").unlink()
    assert main(["sidd", str(tmp_path / "ValidationNoisyBlocksSrgb.mat"), str(tmp_path / "val")]) == 2
    assert "ValidationGtBlocksSrgb.mat: missing" in capsys.readouterr().err
    scipy.io.savemat(tmp_path / "ValidationGtBlocksSrgb.mat", {"x": np.zeros((2, 2))})
    assert main(["sidd", str(tmp_path / "ValidationNoisyBlocksSrgb.mat"), str(tmp_path / "val")]) == 2
    assert "expected uint8 blocks" in capsys.readouterr().err
    (tmp_path / "ValidationGtBlocksSrgb.mat").write_text("not a mat file at all")
    assert main(["sidd", str(tmp_path / "ValidationNoisyBlocksSrgb.mat"), str(tmp_path / "val")]) == 2
    assert "not a MATLAB file" in capsys.readouterr().err
