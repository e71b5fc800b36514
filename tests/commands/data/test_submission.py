"""Submission files, read back as the servers would, made with a network that halves its input."""

import numpy as np
import pytest
import scipy.io

from mambair.commands.data.blocks import read_dnd_boxes
from mambair.commands.data.submission import submit_dnd, submit_sidd
from mambair.errors import UserError


class Halve:
    """Stands in for a Restorer."""

    def restore(self, image: np.ndarray) -> np.ndarray:
        return image // 2 if image.dtype == np.uint8 else image / 2


def test_sidd_submission(tmp_path):
    noisy = np.random.default_rng(0).integers(256, size=(4, 3, 8, 8, 3), dtype=np.uint8)
    scipy.io.savemat(tmp_path / "BenchmarkNoisyBlocksSrgb.mat", {"BenchmarkNoisyBlocksSrgb": noisy})
    arguments = (Halve(), tmp_path / "BenchmarkNoisyBlocksSrgb.mat", tmp_path / "SubmitSrgb.mat", "ours")
    submit_sidd(*arguments, overwrite=False)
    content = scipy.io.loadmat(tmp_path / "SubmitSrgb.mat")
    cells = content["DenoisedBlocksSrgb"]
    assert cells.shape == (4, 3) and cells[3, 1].dtype == np.uint8
    np.testing.assert_array_equal(cells[3, 1], noisy[3, 1] // 2)
    assert content["TimeMPSrgb"].item() > 0
    assert content["OptionalData"]["MethodName"].item().item() == "ours"
    with pytest.raises(UserError, match="exists already"):
        submit_sidd(*arguments, overwrite=False)


@pytest.fixture
def dnd(tmp_path):
    """Two photos with three boxes each, in DND's HDF5 layout: MATLAB's axes are reversed in it, boxes count from 1."""
    h5py = pytest.importorskip("h5py", reason="DND's files are HDF5")
    photos = np.random.default_rng(0).random((2, 20, 30, 3))
    boxes = np.array([[1, 1, 8, 8], [3, 5, 10, 12], [13, 23, 20, 30]], dtype=float)
    (tmp_path / "images_srgb").mkdir()
    with h5py.File(tmp_path / "info.mat", "w") as file:
        info = file.create_group("info")
        references = info.create_dataset("boundingboxes", (2, 1), dtype=h5py.ref_dtype)
        for number, photo in enumerate(photos):
            references[number, 0] = file.create_dataset(f"#refs#/{number}", data=boxes.T).ref
            with h5py.File(tmp_path / "images_srgb" / f"{number + 1:04d}.mat", "w") as photo_file:
                photo_file["InoisySRGB"] = photo.T
    return tmp_path, photos


def test_dnd_submission(dnd):
    folder, photos = dnd
    assert read_dnd_boxes(folder)[1].tolist() == [[0, 0, 8, 8], [2, 4, 10, 12], [12, 22, 20, 30]]
    submit_dnd(Halve(), folder, folder / "out", overwrite=False)
    content = scipy.io.loadmat(folder / "out" / "0002.mat")
    crops = content["Idenoised"].ravel()
    assert len(crops) == 3 and crops[2].dtype == np.float32
    np.testing.assert_allclose(crops[2], photos[1, 12:20, 22:30] / 2, atol=1e-6)
    assert content["israw"].item() == 0 and content["eval_version"].item() == "1.0"


def test_dnd_without_its_files_is_explained(tmp_path):
    pytest.importorskip("h5py", reason="DND's files are HDF5")
    with pytest.raises(UserError, match=r"info\.mat"):
        read_dnd_boxes(tmp_path)
