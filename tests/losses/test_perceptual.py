"""The perceptual loss on the first blocks of a VGG19 with random weights, read from a small file."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch.nn import functional as F
from torchvision.models import WeightsEnum

from mambair.errors import UserError
from mambair.losses.perceptual import LAYER_WEIGHTS, PerceptualLoss, VGGFeatures, _layer_names

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


@pytest.fixture
def weights(tmp_path) -> Path:
    """A file with the parameters of conv1_1, conv1_2 and conv2_1 in torchvision's layout."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for index, (inputs, outputs) in {0: (3, 64), 2: (64, 64), 5: (64, 128)}.items():
        state[f"features.{index}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) * 0.05
        state[f"features.{index}.bias"] = torch.randn(outputs, generator=generator) * 0.05
    torch.save(state, tmp_path / "vgg.pth")
    return tmp_path / "vgg.pth"


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, 16, 12, generator=generator), torch.rand(2, 3, 16, 12, generator=generator)


def test_published_layers_are_the_convolutions_before_their_activation():
    layers = torchvision.models.vgg19(weights=None).features
    names = _layer_names(layers)
    assert [names.index(name) for name in LAYER_WEIGHTS] == [2, 7, 16, 25, 34]
    assert names[-1] == "pool5" and len(names) == 37


def features_by_hand(images: torch.Tensor, path: Path, normalize: bool = True) -> dict[str, torch.Tensor]:
    state = torch.load(path, weights_only=True)
    x = (images - MEAN) / STD if normalize else images
    x = F.conv2d(x, state["features.0.weight"], state["features.0.bias"], padding=1)
    second = F.conv2d(F.relu(x), state["features.2.weight"], state["features.2.bias"], padding=1)
    pooled = F.max_pool2d(F.relu(second), 2)
    third = F.conv2d(pooled, state["features.5.weight"], state["features.5.bias"], padding=1)
    return {"conv1_2": second, "conv2_1": third}


def test_features_are_taken_before_the_activation(weights, pair):
    features = VGGFeatures(["conv1_2", "conv2_1"], weights=weights)(pair[0])
    for name, expected in features_by_hand(pair[0], weights).items():
        torch.testing.assert_close(features[name], expected)
    assert features["conv1_2"].min() < 0


def test_loss_is_the_weighted_sum_over_layers(weights, pair):
    loss = PerceptualLoss({"conv1_2": 0.1, "conv2_1": 1.0}, perceptual_weight=2.0, vgg_weights=str(weights))
    given, wanted = (features_by_hand(images, weights) for images in pair)
    expected = 2 * sum(
        weight * (given[name] - wanted[name]).abs().mean() for name, weight in loss.layer_weights.items()
    )
    assert loss(*pair).item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss(pair[0], pair[0]).item() == 0


def test_style_compares_gram_matrices(weights, pair):
    options = {"layer_weights": {"conv1_2": 1.0}, "use_input_norm": False, "criterion": "l2"}
    loss = PerceptualLoss(**options, perceptual_weight=0.0, style_weight=3.0, vgg_weights=str(weights))
    grams = []
    for images in pair:
        features = features_by_hand(images, weights, normalize=False)["conv1_2"]
        grams.append(torch.einsum("bchw,bdhw->bcd", features, features) / features[0].numel())
    assert loss(*pair).item() == pytest.approx(3 * F.mse_loss(*grams).item(), rel=1e-4)


def test_only_the_prediction_gets_a_gradient(weights, pair):
    loss = PerceptualLoss({"conv2_1": 1.0}, vgg_weights=str(weights))
    prediction = pair[0].clone().requires_grad_()
    loss(prediction, pair[1]).backward()
    assert prediction.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_missing_network_is_explained(monkeypatch):
    def refuse(self, *args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", refuse)
    with pytest.raises(UserError, match=r"cannot be downloaded .*vgg_weights"):
        PerceptualLoss({"conv1_2": 1.0})


def test_wrong_weights_are_explained(tmp_path):
    torch.save({"features.0.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not hold vgg19's feature layers"):
        PerceptualLoss({"conv1_2": 1.0}, vgg_weights=str(tmp_path / "other.pth"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_weights": {"conv1_3": 1.0}}, "no layer 'conv1_3'"),
        ({"layer_weights": {}}, "layer_weights is empty"),
        ({"vgg_type": "vgg12"}, "unknown vgg_type"),
        ({"criterion": "l3"}, "unknown criterion"),
    ],
)
def test_mistakes_are_explained(options, message):
    with pytest.raises(UserError, match=message):
        PerceptualLoss(**options)
