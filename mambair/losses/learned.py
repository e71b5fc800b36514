"""LPIPS and DISTS as losses, by torchmetrics (the extra `losses`), which comes with their trained weights.

The classifiers below them are torchvision's with ImageNet weights, which are downloaded into torch's cache once.
"""

import pickle
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, cast

import torch
import torchvision
from torch import Tensor, nn

from mambair.errors import UserError
from mambair.registry import LOSSES

CLASSIFIERS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}
"""LPIPS's names -> torchvision's."""


def check_classifier(model: str, loss: str) -> None:
    """Bring a classifier's ImageNet weights into torch's cache, and make sure that they are weights and nothing else.

    Raises UserError where they cannot be downloaded, or the cache holds something else in their place.
    """
    published: Any = torchvision.models.get_model_weights(model).DEFAULT
    try:
        # torchmetrics lets torchvision read this file, and that would run code in it.
        published.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{loss}: {torch.hub.get_dir()} holds a damaged or foreign file in the place of {model}'s ImageNet "
            f"weights; remove {Path(published.url).name} there"
        ) from error
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{loss}: {model}'s ImageNet weights are not in {torch.hub.get_dir()} and cannot be downloaded ({error}); "
            f"fetch {published.url} elsewhere and put it into {torch.hub.get_dir()}/checkpoints"
        ) from error


def missing_library(loss: str) -> UserError:
    """What a user is told where torchmetrics is not installed."""
    return UserError(f"{loss} needs torchmetrics; install it with: pip install 'mambair[losses]'")


class LearnedLoss(nn.Module, ABC):
    """Base of losses that are the mean distance of a frozen network; gray images count as colour ones."""

    def __init__(self, loss_weight: float, network: nn.Module) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.network = network.eval().requires_grad_(False)

    @abstractmethod
    def distance(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Distances of images (B, 3, H, W) in [0, 1], a number for each."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        colored = (images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images for images in (prediction, target))
        return self.loss_weight * self.distance(*colored).mean()


@LOSSES.register()
class LPIPSLoss(LearnedLoss):
    """LPIPS v0.1 (Zhang et al., 2018), mean over the batch; `net`: vgg (the usual one for losses), alex or squeeze."""

    def __init__(self, loss_weight: float = 1.0, net: str = "vgg") -> None:
        if net not in CLASSIFIERS:
            raise UserError(f"LPIPSLoss: net '{net}' is not known; use {', '.join(CLASSIFIERS)}")
        try:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
        except ImportError as error:
            raise missing_library("LPIPSLoss") from error
        check_classifier(CLASSIFIERS[net], "LPIPSLoss")
        super().__init__(loss_weight, LearnedPerceptualImagePatchSimilarity(cast(Any, net)).net)

    def distance(self, prediction: Tensor, target: Tensor) -> Tensor:
        return self.network(prediction, target, normalize=True)


@LOSSES.register()
class DISTSLoss(LearnedLoss):
    """DISTS (Ding et al., 2020), mean over the batch: similar textures count as alike."""

    def __init__(self, loss_weight: float = 1.0) -> None:
        try:
            from torchmetrics.functional.image.dists import DISTSNetwork
        except ImportError as error:
            raise missing_library("DISTSLoss") from error
        check_classifier("vgg16", "DISTSLoss")
        super().__init__(loss_weight, DISTSNetwork())

    def distance(self, prediction: Tensor, target: Tensor) -> Tensor:
        return self.network(prediction, target, require_grad=True)
