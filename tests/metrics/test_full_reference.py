"""LPIPS, DISTS and TOPIQ through pyiqa's own code, on random weights in its caches: the trained ones are downloads."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mambair.engine.evaluate.scoring import build_metrics, score
from mambair.errors import UserError
from mambair.metrics import calculate_dists, calculate_lpips, calculate_topiq, pyiqa_models

NAMES = {"lpips": False, "dists": False, "topiq": True}
"""Metric -> whether higher is better."""


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    pyiqa_models.build_model.cache_clear()
    yield
    pyiqa_models.build_model.cache_clear()


@pytest.fixture
def created(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A pyiqa whose every metric is the mean difference of its two (1, 3, H, W) inputs; lists what was created."""
    names: list[str] = []

    def create_metric(name: str, device: torch.device) -> Any:
        names.append(name)
        return lambda image, reference: (image - reference).abs().mean()

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))
    return names


def test_images_are_cropped_and_compared(created: list[str]) -> None:
    blocks = {name: {"type": f"calculate_{name}", "crop_border": 2} for name in NAMES}
    metrics = build_metrics(blocks, lambda key: key)
    assert {metric.name: metric.higher_is_better for metric in metrics} == NAMES
    assert all(metric.needs_reference for metric in metrics)
    reference = np.zeros((12, 14, 3), np.uint8)
    image = reference + np.uint8(51)
    image[:2], image[:, -2:] = 255, 255  # the border, which is cut off
    for channels in (3, 1):
        values = score(metrics, image[..., :channels], reference[..., :channels])[0]
        assert values == pytest.approx(dict.fromkeys(NAMES, 0.2), rel=1e-6)
    assert sorted(created) == ["dists", "lpips", "topiq_fr"]
    assert score(metrics, image, None) == ({}, [])
    calculate_lpips(image, reference, net="vgg")
    assert created[-1] == "lpips-vgg"


def test_what_cannot_be_compared(created: list[str]) -> None:
    with pytest.raises(UserError, match="two images of one size"):
        calculate_dists(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(UserError, match="net 'resnet' is not known"):
        calculate_lpips(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8), net="resnet")


def test_missing_package_is_explained_with_its_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(UserError, match=r"calculate_topiq needs pyiqa \(licensed for noncommercial use\)"):
        calculate_topiq(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8))


def fill_torchs_cache(folder: Path) -> None:
    """Random classifiers where torchvision looks for the downloaded ones, as small files."""
    import torchvision

    torch.manual_seed(0)
    for model in ("alexnet", "vgg16"):
        with torch.device("meta"):
            blueprint = getattr(torchvision.models, model)(weights=None).state_dict()
        state = {
            key: torch.randn(value.shape) * (2 / max(1, value[0].numel())) ** 0.5
            if key.startswith("features")
            else torch.zeros(1).expand(value.shape)
            for key, value in blueprint.items()
        }
        url = torchvision.models.get_model_weights(model).DEFAULT.url
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        torch.save(state, folder / "checkpoints" / Path(url).name)


def fill_pyiqas_cache(folder: Path) -> None:
    """Random heads where pyiqa looks for its own downloads."""
    from pyiqa.archs import dists_arch, lpips_arch

    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(1)
    heads = {
        f"lin{index}.model.1.weight": torch.rand(1, width, 1, 1, generator=generator)
        for index, width in enumerate([64, 192, 384, 256, 256])
    }
    torch.save(heads, folder / Path(lpips_arch.default_model_urls["0.1_alex"]).name)
    widths = 3 + 64 + 128 + 256 + 512 + 512
    heads = {key: torch.rand(1, widths, 1, 1, generator=generator) for key in ("alpha", "beta")}
    torch.save(heads, folder / Path(dists_arch.default_model_urls["url"]).name)


@pytest.mark.parametrize("name", ["lpips", "dists"])
def test_through_pyiqa_itself(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal images have distance 0, and a more distorted one is further away: on untrained weights, which suffices."""
    pytest.importorskip("pyiqa")
    from pyiqa.utils import download_util

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(download_util, "DEFAULT_CACHE_DIR", str(tmp_path / "pyiqa"))
    fill_torchs_cache(tmp_path / "hub")
    fill_pyiqas_cache(tmp_path / "pyiqa")
    function = {"lpips": calculate_lpips, "dists": calculate_dists}[name]
    rng = np.random.default_rng(0)
    reference = np.kron(rng.integers(60, 200, (12, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    noise = rng.normal(0, 1, reference.shape)
    near, far = (np.clip(reference + sigma * noise, 0, 255).astype(np.uint8) for sigma in (5, 40))
    assert function(reference, reference) == pytest.approx(0, abs=1e-5)
    assert 0 < function(near, reference) < function(far, reference)
