"""A first try of foreign parts, before a run writes anything: what would fail after an hour fails now.

This package's own parts are known to fit and are not tried, but for losses that ask for patches of a size.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mambair.archs.network import traits_of
from mambair.errors import UserError
from mambair.losses import LossTerm
from mambair.models.base_model import TrainableModel
from mambair.models.restoration_model import RestorationModel
from mambair.options import TrainOptions
from mambair.registry import ARCHS, AUGMENTATIONS, LOSSES, MODELS, Registry, is_foreign
from mambair.runtime.foreign_code import foreign_code

ODD_SIZE = (37, 45)
"""Of the image that a network is tried with: photos are of any size."""


def is_foreign_type(registry: Registry[Any], block: Mapping[str, Any] | None) -> bool:
    """Whether a component block names something that is not this package's."""
    return block is not None and block["type"] in registry and is_foreign(registry.get(block["type"]))


def has_foreign_parts(options: TrainOptions) -> bool:
    """Whether a training step runs code that is not this package's: a captured CUDA graph may not fit it."""
    train = options.train
    losses = [train.pixel_opt, train.perceptual_opt, train.gan_opt, *(loss.component for loss in train.losses)]
    return (
        is_foreign_type(ARCHS, options.network_g)
        or is_foreign(MODELS.get(options.model_type))
        or any(is_foreign_type(LOSSES, block) or (block or {}).get("type") == "DISTSLoss" for block in losses)
    )


def try_model(model: Any, options: TrainOptions) -> None:
    """Raise UserError for a model, a network, a loss or an augmentation that training could not go on with."""
    where = options.where("model_type")
    if not isinstance(model, TrainableModel):
        raise UserError(
            f"{where}: {options.model_type}.from_options gave a {type(model).__name__}; it must give a TrainableModel "
            "(see mambair.models.base_model)"
        )
    if not model.optimizers or not model.optimizers.keys() <= model.networks.keys():
        raise UserError(f"{where}: {options.model_type} has no optimizers for its networks; from_options makes them")
    for name, network in model.networks.items():
        block = getattr(options, f"network_{name.removeprefix('net_')}", None)
        if block is not None and is_foreign_type(ARCHS, block):
            what = f"{options.where(f'network_{name[-1]}')}: {block['type']}"
            try_network(network, what, restores=name == "net_g")
            if name == "net_g" and (scale := traits_of(network).scale) != options.scale:
                raise UserError(f"{what} enlarges {scale} times but scale is {options.scale}; make them equal")
    if isinstance(model, RestorationModel):
        for name, term in model.losses.items():
            if name not in ("l_pix", "l_percep") or is_foreign(type(term.loss)):
                try_loss(term, f"{options.where('train')}: {type(term.loss).__name__}", _patches(model, options))
        if any(is_foreign_type(AUGMENTATIONS, block) for block in options.train.augmentations):
            try_mixing(model, options)


def try_network(network: nn.Module, what: str, *, restores: bool) -> None:
    """A forward pass of a network with an image of an odd size."""
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(f"{what} has no parameters to train")
    if not restores:
        return
    device = next(network.parameters()).device
    traits = traits_of(network)
    image = torch.rand(1, traits.in_channels, *ODD_SIZE, generator=torch.Generator().manual_seed(0)).to(device)
    remedy = "; images have any size: pad them in forward, as mambair.archs.layers.reflect_to_multiple does"
    was_training = network.training
    with torch.no_grad(), torch.random.fork_rng(), foreign_code(f"{what}, given an image {shape(image)},", remedy):
        restored = network.eval()(image)
    network.train(was_training)
    wanted = [side * traits.scale for side in ODD_SIZE]
    if not isinstance(restored, Tensor) or restored.ndim != 4 or list(restored.shape[2:]) != wanted:
        given = shape(restored) if isinstance(restored, Tensor) else type(restored).__name__
        raise UserError(
            f"{what} makes {given} of an image {shape(image)}; with scale {traits.scale} it must be "
            f"(1, C, {wanted[0]}, {wanted[1]})"
        )


def try_loss(term: LossTerm, what: str, pair: tuple[Tensor, Tensor]) -> None:
    """A loss of a batch of random patches: a number, with a gradient."""
    prediction, target = pair[0].clone().requires_grad_(), pair[1]
    with torch.random.fork_rng(), foreign_code(what):
        value = term(prediction, target, prediction.detach() if term.wants_average else None)
    if not bool(value.isfinite()):
        raise UserError(f"{what} gives {value.item()} for random patches {shape(target)}")
    if not value.requires_grad:
        raise UserError(f"{what} has no gradient: compute it from the prediction with torch's operations alone")


def try_mixing(model: RestorationModel, options: TrainOptions) -> None:
    """The augmentations of batches, with a batch of random patches."""
    gt = _patches(model, options)[0]
    lq = gt[..., :: options.scale, :: options.scale].contiguous()
    with foreign_code(f"{options.where('train.augmentations')}: the list"):
        model.mixed({"lq": lq, "gt": gt}, np.random.default_rng(0))


def shape(tensor: Tensor) -> str:
    """(1, 3, 37, 45)."""
    return str(tuple(tensor.shape))


def _patches(model: RestorationModel, options: TrainOptions) -> tuple[Tensor, Tensor]:
    """Two random batches of the size that training begins with, on the model's device."""
    section = options.datasets["train"]
    side = min([*section.gt_sizes, options.gt_size or section.gt_size or 64])
    channels = traits_of(model.networks["net_g"]).in_channels
    rng = torch.Generator().manual_seed(0)
    first, second = (torch.rand(2, channels, side, side, generator=rng).to(model.device) for _ in range(2))
    return first, second
