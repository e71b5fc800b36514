"""LPIPS and DISTS through torchmetrics: its trained weights on random classifiers, which torch's cache holds."""

import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

from mambair.errors import UserError
from mambair.losses import DISTSLoss, LPIPSLoss
from mambair.registry import LOSSES

needs_torchmetrics = pytest.mark.skipif(find_spec("torchmetrics") is None, reason="needs torchmetrics")

State = Mapping[str, Tensor]


def fill_cache(folder: Path, model: str) -> State:
    """Put a file of random weights where torch keeps the downloaded ones; returns those of the feature layers."""
    torch.manual_seed(0)
    with torch.device("meta"):
        blueprint = getattr(torchvision.models, model)(weights=None).state_dict()
    state = {
        key: torch.randn(value.shape) * math.sqrt(2 / max(1, value[0].numel()))
        # The classifier's many numbers are all the same one, which takes no room in a file.
        if key.startswith("features")
        else torch.zeros(1).expand(value.shape)
        for key, value in blueprint.items()
    }
    url = torchvision.models.get_model_weights(model).DEFAULT.url
    target = folder / "hub" / "checkpoints" / Path(url).name
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, target)
    return {key: value.double() for key, value in state.items() if key.startswith("features")}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path


def pair() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(3)
    return torch.rand(2, 3, 40, 36, generator=rng), torch.rand(2, 3, 40, 36, generator=rng)


def packaged(name: str) -> State:
    """A file of trained weights that comes with torchmetrics."""
    import torchmetrics.functional.image as package

    return torch.load(Path(package.__file__).parent / name, map_location="cpu", weights_only=True)


def vgg_stages(state: State, images: Tensor, pool: str) -> list[Tensor]:
    """The outputs of VGG16's five stages in float64, convolution by convolution."""
    stages = []
    for number, convolutions in enumerate([(0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)]):
        if number and pool == "max":
            images = F.max_pool2d(images, 2)
        elif number:
            window = torch.from_numpy(np.outer(np.hanning(5)[1:-1], np.hanning(5)[1:-1]))
            window = (window / window.sum()).expand(images.shape[1], 1, 3, 3)
            images = (F.conv2d(images**2, window, stride=2, padding=1, groups=images.shape[1]) + 1e-12).sqrt()
        for index in convolutions:
            weight, bias = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
            images = F.relu(F.conv2d(images, weight, bias, padding=1))
        stages.append(images)
    return stages


def channels(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)


@needs_torchmetrics
def test_lpips_is_its_definition(cache: Path) -> None:
    state, heads = fill_cache(cache, "vgg16"), packaged("lpips_models/vgg.pth")
    prediction, target = pair()
    stages = []
    for images in (prediction, target):
        shifted = (2 * images.double() - 1 - channels((-0.030, -0.088, -0.188))) / channels((0.458, 0.448, 0.450))
        stages.append([stage / stage.norm(dim=1, keepdim=True) for stage in vgg_stages(state, shifted, "max")])
    expected = sum(
        ((first - second) ** 2 * heads[f"lin{index}.model.1.weight"].double()).sum(dim=1).mean(dim=(1, 2)).mean()
        for index, (first, second) in enumerate(zip(*stages, strict=True))
    )
    loss = LPIPSLoss(loss_weight=3.0)
    assert loss(prediction, target).item() == pytest.approx(3 * expected.item(), rel=1e-4)
    prediction.requires_grad_()
    loss(prediction, target).backward()
    assert prediction.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    gray = target[:, :1]
    assert loss(gray, gray).item() == pytest.approx(0, abs=1e-7)


@needs_torchmetrics
def test_dists_is_its_definition(cache: Path) -> None:
    state, heads = fill_cache(cache, "vgg16"), packaged("dists_models/weights.pt")
    prediction, target = pair()
    stages = []
    for images in (prediction, target):
        images = images.double()
        shifted = (images - channels((0.485, 0.456, 0.406))) / channels((0.229, 0.224, 0.225))
        stages.append([images, *vgg_stages(state, shifted, "l2")])
    total = (heads["alpha"].sum() + heads["beta"].sum()).double()
    similarity, position = torch.zeros(2, dtype=torch.float64), 0
    for first, second in zip(*stages, strict=True):
        width = first.shape[1]
        alpha, beta = (heads[key][0, position : position + width, 0, 0].double() / total for key in ("alpha", "beta"))
        position += width
        m1, m2 = first.mean(dim=(2, 3)), second.mean(dim=(2, 3))
        v1, v2 = first.var(dim=(2, 3), unbiased=False), second.var(dim=(2, 3), unbiased=False)
        covariance = (first * second).mean(dim=(2, 3)) - m1 * m2
        similarity += (alpha * (2 * m1 * m2 + 1e-6) / (m1**2 + m2**2 + 1e-6)).sum(dim=1)
        similarity += (beta * (2 * covariance + 1e-6) / (v1 + v2 + 1e-6)).sum(dim=1)
    loss = DISTSLoss()
    assert loss(prediction, target).item() == pytest.approx((1 - similarity).mean().item(), rel=1e-4)
    prediction.requires_grad_()
    loss(prediction, target).backward()
    assert prediction.grad.abs().sum() > 0


@needs_torchmetrics
def test_a_cache_without_network_is_explained(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **keywords: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(UserError, match=r"LPIPSLoss: vgg16's ImageNet weights are not in .* put it into"):
        LOSSES.build({"type": "LPIPSLoss"})


@needs_torchmetrics
def test_code_in_the_cache_is_not_run(cache: Path) -> None:
    fill_cache(cache, "alexnet")
    (file,) = (cache / "hub" / "checkpoints").iterdir()
    ran = cache / "ran"
    torch.save({"features.0.weight": Trap(ran)}, file)
    with pytest.raises(UserError, match="damaged or foreign file"):
        LPIPSLoss(net="alex")
    assert not ran.exists()


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_names_of_classifiers() -> None:
    with pytest.raises(UserError, match="net 'resnet' is not known"):
        LPIPSLoss(net="resnet")


def test_missing_library_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("torchmetrics.image.lpip", "torchmetrics.functional.image.dists"):
        monkeypatch.setitem(sys.modules, name, None)
    for loss in ("LPIPSLoss", "DISTSLoss"):
        with pytest.raises(UserError, match=r"pip install 'mambair\[losses\]"):
            LOSSES.build({"type": loss})
