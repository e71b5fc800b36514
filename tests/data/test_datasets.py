"""Paired, synthetic and single-image data sets."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

from mambair.data.paired_dataset import PairedImageDataset
from mambair.data.pairing import list_entries, pair_images
from mambair.data.single_dataset import SingleImageDataset
from mambair.data.synthesis import BicubicReduction, GaussianNoise, JpegArtifacts
from mambair.data.synthetic_dataset import SyntheticDataset
from mambair.data.transforms import Symmetries, ToTensor
from mambair.errors import UserError
from mambair.imaging.files import write_image
from mambair.imaging.resize import imresize
from mambair.imaging.tensors import tensor_to_image

PHOTO = skimage.data.astronaut()[10:73, 180:270]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """gt/a.png (63x90), its x2 reduction lq/ax2.png of 62x90, and gray.png."""
    write_image(tmp_path / "gt" / "a.png", PHOTO)
    write_image(tmp_path / "lq" / "ax2.png", imresize(PHOTO[:62], 1 / 2))
    write_image(tmp_path / "single" / "gray.png", PHOTO[..., :1])
    return tmp_path


def paired(root: Path, **options) -> PairedImageDataset:
    pairs, problems = pair_images([root / "gt"], [root / "lq"], filename_template="{}x2")
    assert not problems
    return PairedImageDataset(pairs, scale=2, **options)


def test_whole_pairs_are_cut_to_what_both_cover(root: Path) -> None:
    dataset = paired(root)
    sample = dataset[0]
    np.testing.assert_array_equal(tensor_to_image(sample["gt"]), PHOTO[:62])
    np.testing.assert_array_equal(tensor_to_image(sample["lq"]), imresize(PHOTO[:62], 1 / 2))
    assert (sample["gt_path"], sample["lq_path"]) == (str(root / "gt" / "a.png"), str(root / "lq" / "ax2.png"))
    assert dataset.paths == [sample["gt_path"]]
    assert len(dataset) == 1


def test_patches_of_a_pair_show_the_same_place_and_symmetry(root: Path) -> None:
    dataset = paired(root, gt_size=24, symmetries=Symmetries(True, True))
    for seed in range(20):
        sample = dataset.sample(0, np.random.default_rng(seed))
        assert sample["gt"].shape == (3, 24, 24)
        assert sample["lq"].shape == (3, 12, 12)
        assert sample["gt"].is_contiguous()
        assert sample["lq"].is_contiguous()
        reduced = torch.nn.functional.avg_pool2d(sample["gt"], 2)
        assert (reduced - sample["lq"]).abs().mean() < 0.03


def test_samples_are_functions_of_their_generator(root: Path) -> None:
    dataset = paired(root, gt_size=16, symmetries=Symmetries(True, True))
    first, again, other = (dataset.sample(0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first["gt"], again["gt"])
    assert torch.equal(first["lq"], again["lq"])
    assert not torch.equal(first["gt"], other["gt"])


def test_progressive_patches_override_the_data_set_s_own(root: Path) -> None:
    assert paired(root, gt_size=16).sample(0, np.random.default_rng(0), 32)["gt"].shape == (3, 32, 32)
    assert paired(root).sample(0, np.random.default_rng(0))["gt"].shape == (3, 62, 90)
    with pytest.raises(UserError, match=r"ax2\.png: 31x45 pixels are too few for patches of 32x32"):
        paired(root).sample(0, np.random.default_rng(0), 64)


def test_a_pair_that_no_longer_fits_is_named(root: Path) -> None:
    dataset = paired(root)
    write_image(root / "lq" / "ax2.png", PHOTO[:30, :45])
    with pytest.raises(UserError, match=r"ax2\.png: 30x45 pixels do not fit its ground truth of 63x90 at scale 2"):
        dataset[0]


def test_luma_and_gray(root: Path) -> None:
    sample = paired(root, to_tensor=ToTensor(luma=True))[0]
    assert sample["gt"].shape == (1, 62, 90)
    assert 16 / 255 <= sample["gt"].min() <= sample["gt"].max() <= 235 / 255
    assert paired(root, mode="gray")[0]["lq"].shape == (1, 31, 45)


def synthetic(root: Path, degradation, **options) -> SyntheticDataset:
    return SyntheticDataset(list_entries([root / "gt"], "dataroot_gt"), degradation, **options)


def test_noise_of_tests_is_the_same_for_every_image_and_time(root: Path) -> None:
    write_image(root / "gt" / "b.png", np.zeros_like(PHOTO))
    dataset = synthetic(root, GaussianNoise(25))
    first, second = dataset[0], dataset[1]
    torch.testing.assert_close(first["lq"] - first["gt"], second["lq"], atol=1e-6, rtol=0)
    assert torch.equal(first["lq"], dataset[0]["lq"])
    expected = np.random.RandomState(0).normal(0, 25 / 255, PHOTO.shape)[..., ::-1].transpose(2, 0, 1)
    np.testing.assert_allclose(second["lq"].numpy(), expected, atol=1e-7)


def test_noise_of_training_depends_on_the_draw(root: Path) -> None:
    dataset = synthetic(root, GaussianNoise(25), gt_size=40)
    samples = [dataset.sample(0, np.random.default_rng(seed)) for seed in range(30)]
    noise = torch.stack([sample["lq"] - sample["gt"] for sample in samples]) * 255
    assert noise.std().item() == pytest.approx(25, rel=0.02)
    assert noise.mean(0).std().item() == pytest.approx(25 / 30**0.5, rel=0.1)


def test_jpeg_and_bicubic_on_the_fly(root: Path) -> None:
    gray = synthetic(root, JpegArtifacts(10), mode="gray")[0]
    assert gray["lq"].shape == gray["gt"].shape == (1, 63, 90)
    assert 0 < (gray["lq"] - gray["gt"]).abs().mean() < 0.1
    reduced = synthetic(root, BicubicReduction(4))[0]
    assert reduced["gt"].shape == (3, 60, 88)
    np.testing.assert_array_equal(tensor_to_image(reduced["lq"]), imresize(PHOTO[:60, :88], 1 / 4))
    patch = synthetic(root, BicubicReduction(4), gt_size=32).sample(0, np.random.default_rng(0))
    assert (patch["gt"].shape, patch["lq"].shape) == ((3, 32, 32), (3, 8, 8))
    with pytest.raises(UserError, match="too few for patches of 16x16"):
        synthetic(root, BicubicReduction(4), gt_size=64).sample(0, np.random.default_rng(0))


def test_single_images_may_be_gray(root: Path) -> None:
    entries = list_entries([root / "single"], "dataroot_lq")
    sample = SingleImageDataset(entries)[0]
    assert set(sample) == {"lq", "lq_path"}
    np.testing.assert_array_equal(tensor_to_image(sample["lq"]), PHOTO[..., [0, 0, 0]])
    assert SingleImageDataset(entries, mode="gray")[0]["lq"].shape == (1, 63, 90)
