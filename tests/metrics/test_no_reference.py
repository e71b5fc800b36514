"""Metrics without ground truth through a stand-in for pyiqa, whose models have to be downloaded."""

import sys
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch

from mambair.engine.evaluate.scoring import build_metrics, score
from mambair.errors import UserError
from mambair.metrics import calculate_musiq, calculate_niqe, pyiqa_models

NAMES = ("niqe", "brisque", "musiq", "maniqa", "clipiqa")


@pytest.fixture(autouse=True)
def fresh():
    pyiqa_models.build_model.cache_clear()
    yield
    pyiqa_models.build_model.cache_clear()


@pytest.fixture
def created(monkeypatch) -> list[str]:
    """A pyiqa whose every metric is the mean of its (1, 3, H, W) input; lists what was created."""
    names: list[str] = []

    def create_metric(name: str, device: torch.device):
        names.append(name)

        def model(images: torch.Tensor) -> torch.Tensor:
            assert images.shape[:2] == (1, 3)
            return images.mean()

        return model

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))
    return names


def build(*names: str):
    return build_metrics({name: {"type": f"calculate_{name}"} for name in names}, lambda key: key)


def test_images_without_ground_truth_are_scored(created):
    metrics = build("psnr", *NAMES)
    image = np.full((8, 9, 3), 51, dtype=np.uint8)
    for shape in (image, image[..., :1]):
        values, problems = score(metrics, shape, None)
        assert not problems and values == pytest.approx(dict.fromkeys(NAMES, 0.2), rel=1e-6)
    assert sorted(created) == sorted(NAMES)  # once each


def test_direction_of_each_metric():
    better = {metric.name: metric.higher_is_better for metric in build(*NAMES)}
    assert better == {"niqe": False, "brisque": False, "musiq": True, "maniqa": True, "clipiqa": True}


def test_missing_package_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(UserError, match=r"pip install 'mambair\[metrics\]"):
        calculate_niqe(np.zeros((8, 8, 3), np.uint8))


def test_missing_network_is_explained(monkeypatch):
    def refuse(name: str, device: torch.device):
        raise URLError("no route to host")

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=refuse))
    with pytest.raises(UserError, match="cannot load musiq's weights"):
        calculate_musiq(np.zeros((8, 8, 3), np.uint8))
