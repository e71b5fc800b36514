"""Perceptual loss on the features of a VGG classifier, before the activations (ESRGAN, Section 3.3).

Shapes: images (B, 3, H, W) in [0, 1]; features (B, C, h, w), halved in size after every block.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from mambair.errors import UserError
from mambair.registry import LOSSES, did_you_mean
from mambair.weights.state_files import read_state_dict

VGG_TYPES = ("vgg11", "vgg13", "vgg16", "vgg19")
CRITERIA = ("l1", "l2", "fro")
# Real-ESRGAN's five layers.
LAYER_WEIGHTS = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGGFeatures(nn.Module):
    """The named layers' outputs of a torchvision VGG, as far as the deepest one asked for.

    Layers are called conv<block>_<number>, relu<block>_<number> and pool<block>, counted from 1. The parameters are
    frozen. `weights` is a .pth or .safetensors file in torchvision's layout; None downloads torchvision's ImageNet
    weights into torch's cache, or takes them from there.
    """

    def __init__(
        self, layers: list[str], vgg_type: str = "vgg19", weights: str | Path | None = None, normalize: bool = True
    ) -> None:
        super().__init__()
        if vgg_type not in VGG_TYPES:
            raise UserError(f"PerceptualLoss: unknown vgg_type '{vgg_type}'; known: {', '.join(VGG_TYPES)}")
        with torch.device("meta"):  # the classifier's 124 million parameters are never needed
            blueprint = getattr(torchvision.models, vgg_type)(weights=None).features
        names = _layer_names(blueprint)
        for layer in layers:
            if layer not in names:
                hint = did_you_mean(layer, names)
                raise UserError(f"PerceptualLoss: {vgg_type} has no layer '{layer}'{hint}")
        depth = max(names.index(layer) for layer in layers) + 1
        self.names = names[:depth]
        self.layers = frozenset(layers)
        # Activations in place would change features that were kept.
        self.features = nn.Sequential(
            *(nn.ReLU() if isinstance(layer, nn.ReLU) else layer for layer in blueprint[:depth])
        ).to_empty(device="cpu")
        self.features.load_state_dict(_vgg_weights(vgg_type, weights, self.features.state_dict()))
        self.requires_grad_(False).eval()
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if normalize else ((0.0,) * 3, (1.0,) * 3)
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.std: Tensor
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Features by layer name."""
        features = (images - self.mean) / self.std
        kept = {}
        for name, layer in zip(self.names, self.features, strict=True):
            features = layer(features)
            if name in self.layers:
                kept[name] = features
        return kept


def _layer_names(features: nn.Sequential) -> list[str]:
    names, block, number = [], 1, 0
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            number += 1
            names.append(f"conv{block}_{number}")
        elif isinstance(layer, nn.ReLU):
            names.append(f"relu{block}_{number}")
        else:
            names.append(f"pool{block}")
            block, number = block + 1, 0
    return names


def _vgg_weights(vgg_type: str, path: str | Path | None, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The feature layers' parameters from a file, torch's cache, or the network."""
    if path is not None:
        state, source = read_state_dict(path), str(path)
    else:
        published = torchvision.models.get_model_weights(vgg_type).IMAGENET1K_V1
        try:
            # torchvision would run code in a file that somebody put into the cache.
            state = published.get_state_dict(progress=True, check_hash=True, weights_only=True)
            source = published.url
        except pickle.UnpicklingError as error:
            raise UserError(
                f"train.perceptual_opt: {torch.hub.get_dir()} holds a damaged or foreign file in the "
                f"place of {vgg_type}'s ImageNet weights; remove {Path(published.url).name} there"
            ) from error
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"train.perceptual_opt: {vgg_type}'s ImageNet weights are not in {torch.hub.get_dir()} and cannot be "
                f"downloaded ({error}); fetch {published.url} elsewhere and give the file as vgg_weights"
            ) from error
    state = {key.removeprefix("features."): value for key, value in state.items()}
    for key, tensor in wanted.items():
        if key not in state or state[key].shape != tensor.shape:
            raise UserError(
                f"train.perceptual_opt.vgg_weights: {source} does not hold {vgg_type}'s feature layers "
                f"(features.{key} of shape {tuple(tensor.shape)})"
            )
    return {key: state[key] for key in wanted}


@LOSSES.register()
class PerceptualLoss(nn.Module):
    """Weighted distance of VGG features, and optionally of their Gram matrices (style).

    `layer_weights` maps layers to weights. `criterion` is l1 (mean absolute), l2 (mean squared) or fro (Frobenius
    norm). `use_input_norm` brings images to ImageNet's mean and deviation; `range_norm` first maps [-1, 1] to [0, 1].
    A weight of 0 leaves the part out. Called as loss(prediction, target), both (B, 3, H, W), it gives a scalar.
    """

    def __init__(
        self,
        layer_weights: Mapping[str, float] = LAYER_WEIGHTS,
        vgg_type: str = "vgg19",
        use_input_norm: bool = True,
        range_norm: bool = False,
        perceptual_weight: float = 1.0,
        style_weight: float = 0.0,
        criterion: str = "l1",
        vgg_weights: str | None = None,
    ) -> None:
        super().__init__()
        if criterion not in CRITERIA:
            raise UserError(f"PerceptualLoss: unknown criterion '{criterion}'; known: {', '.join(CRITERIA)}")
        if not layer_weights:
            raise UserError("PerceptualLoss: layer_weights is empty; name at least one layer, such as conv5_4: 1.0")
        self.layer_weights = dict(layer_weights)
        self.range_norm = range_norm
        self.perceptual_weight = perceptual_weight
        self.style_weight = style_weight
        self.criterion = criterion
        self.vgg = VGGFeatures(list(self.layer_weights), vgg_type, vgg_weights, use_input_norm)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        prediction = prediction.to(target.dtype)  # a half-precision prediction still has its loss in float32
        if self.range_norm:
            prediction, target = (prediction + 1) / 2, (target + 1) / 2
        features = self.vgg(prediction)
        with torch.no_grad():
            wanted = self.vgg(target)
        total = prediction.new_zeros((), dtype=torch.float32)
        for layer, weight in self.layer_weights.items():
            given, aim = features[layer].float(), wanted[layer].float()
            if self.perceptual_weight:
                total = total + self.perceptual_weight * weight * self._distance(given, aim)
            if self.style_weight:
                total = total + self.style_weight * weight * self._distance(_gram(given), _gram(aim))
        return total

    def _distance(self, given: Tensor, aim: Tensor) -> Tensor:
        difference = given - aim
        if self.criterion == "l1":
            return difference.abs().mean()
        return difference.square().mean() if self.criterion == "l2" else difference.norm()


def _gram(features: Tensor) -> Tensor:
    """Channel correlations (B, C, C), per pixel and channel."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat[0].numel()
