"""The networks and images that analyses run on."""

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from skimage import data as sample_images
from torch import Tensor, nn

from mambair.archs.assm import ASSM, SelectiveScan
from mambair.archs.blocks import VSSM
from mambair.errors import UserError
from mambair.imaging.files import list_images, read_image
from mambair.imaging.tensors import image_to_tensor
from mambair.weights.loading import load_network
from mambair.weights.sources import find_weights

STATE_SPACE_MODULES = (VSSM, ASSM)
"""Those of MambaIR and of MambaIRv2."""
SAMPLE_IMAGES = ("astronaut", "chelsea", "coffee", "rocket")
RANDOM_WEIGHTS = (
    "%s: these are random weights; what a trained network does can look entirely different. Pass weights to measure it"
)

logger = logging.getLogger(__name__)


def load_any_network(path: str | Path) -> nn.Module:
    """A network from a weight file: MambaIR's by this package, any other architecture through spandrel.

    `path` is all that `find_weights` takes. The network has attributes `scale` and `in_channels`. Raises UserError for
    a file that neither can load.
    """
    path = find_weights(path)
    try:
        return load_network(path)
    except UserError as error:
        if find_spec("spandrel") is None:
            raise
        from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError

        try:
            descriptor = ModelLoader(device="cpu").load_from_file(path)
        except UnsupportedModelError:
            raise error from None
        if not isinstance(descriptor, ImageModelDescriptor):
            raise UserError(f"{path}: {descriptor.architecture.name} does not restore single images") from error
        network = descriptor.model
        network.scale, network.in_channels = descriptor.scale, descriptor.input_channels
        return network.eval()


def sample_crops(
    count: int, size: int, channels: int, rng: np.random.Generator, folder: Path | None = None
) -> list[Tensor]:
    """`count` random square crops of photos: those of a folder, or those that scikit-image ships.

    Returns (channels, size, size) float tensors in [0, 1]. Raises UserError if photos are smaller than `size`.
    """
    if folder is None:
        photos: Sequence[np.ndarray] = [getattr(sample_images, name)() for name in SAMPLE_IMAGES]
    else:
        paths = list_images(folder)
        if not paths:
            raise UserError(f"{folder}: holds no images")
        photos = [read_image(path, "color") for path in paths[:count]]
    crops = []
    for index in range(count):
        photo = photos[index % len(photos)]
        height, width = photo.shape[:2]
        if min(height, width) < size:
            raise UserError(
                f"an image of {width}x{height} pixels is smaller than the crops of {size}; use a smaller size"
            )
        top, left = rng.integers(height - size + 1), rng.integers(width - size + 1)
        crop = image_to_tensor(photo[top : top + size, left : left + size])
        crops.append(crop if channels == crop.shape[0] else crop.mean(dim=0, keepdim=True).expand(channels, -1, -1))
    return crops


def is_untrained(network: nn.Module) -> bool:
    """Whether all parameters of scans are where initialisation put them; False for networks without scans."""
    scans = [module for module in network.modules() if isinstance(module, (VSSM, SelectiveScan))]
    return bool(scans) and all((scan.Ds == 1).all() for scan in scans)


def warn_random_weights(name: str) -> None:
    """Say that a measurement on an untrained network means little."""
    logger.warning(RANDOM_WEIGHTS, name)


def to_device(crops: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """The crops on the device of the network."""
    return [crop.to(device) for crop in crops]
