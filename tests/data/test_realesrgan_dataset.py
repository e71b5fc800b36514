from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

from mambair.data.builders import BuildContext, build_dataset
from mambair.data.realesrgan_dataset import PATCH_MARGIN, RealESRGANDataset, pad_to
from mambair.data.samplers import Draw
from mambair.data.seeded_dataset import SeededDataset, collate
from mambair.errors import UserError
from mambair.imaging.files import write_image
from mambair.options.dataset_schema import DatasetOptions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photo = skimage.data.astronaut()
    write_image(tmp_path / "small.png", photo[:100, :120])
    write_image(tmp_path / "large.png", photo)
    return tmp_path


def build(folder: Path, training: bool = True, **keys) -> RealESRGANDataset:
    section = DatasetOptions(type="RealESRGANDataset", dataroot_gt=str(folder), gt_size=32, **keys)
    context = BuildContext(lambda key: f"x.yml: {key}", "datasets.train", 4, training)
    return build_dataset(section, context)


def test_samples_have_patches_with_a_margin_and_kernels(folder):
    dataset = build(folder, use_hflip=True, use_rot=True)
    for index in range(2):
        sample = dataset.sample(index, np.random.default_rng(index))
        assert sample["gt"].shape == (3, 32 + PATCH_MARGIN, 32 + PATCH_MARGIN)
        for key in ("kernel1", "kernel2", "sinc_kernel"):
            assert sample[key].shape == (21, 21) and sample[key].sum().item() == pytest.approx(1, abs=1e-5)


def test_batches_are_a_function_of_the_draw(folder):
    seeded = SeededDataset(build(folder), seed=3)
    batches = [collate([seeded[Draw(number, None)] for number in (5, 6)]) for _ in range(2)]
    assert torch.equal(batches[0]["gt"], batches[1]["gt"])
    assert torch.equal(batches[0]["kernel2"], batches[1]["kernel2"])
    assert not torch.equal(batches[0]["kernel1"][0], batches[0]["kernel1"][1])


def test_options_reach_the_kernels(folder):
    dataset = build(folder, blur_kernel_size=9, kernel_list2=["iso"], kernel_prob2=[1.0], blur_sigma2=[0.5, 0.6])
    assert dataset.first.size == 9 and dataset.first.sigma == (0.2, 3.0)
    assert dataset.second.kinds == ("iso",) and dataset.second.sigma == (0.5, 0.6)
    published = build(folder)
    assert published.second.sigma == (0.2, 1.5) and published.final_sinc_odds == 0.8
    assert published.first.odds == (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)


def test_small_images_are_reflected():
    image = np.arange(12).reshape(3, 4, 1)
    padded = pad_to(image, 5)
    assert padded.shape == (5, 5, 1)
    assert padded[:, 0, 0].tolist() == [0, 4, 8, 4, 0] and padded[0, :, 0].tolist() == [0, 1, 2, 3, 2]
    assert pad_to(image, 3) is image


def test_it_cannot_be_evaluated(folder):
    with pytest.raises(UserError, match="is for training"):
        build(folder, training=False)
