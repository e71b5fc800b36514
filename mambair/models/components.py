"""Option sections -> the parts that models are made of. Each error names the option file, line and key."""

import itertools
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mambair.archs import build_network
from mambair.contracts import AdversarialLoss, Augmentation, Loss
from mambair.data.augmentations import MixUp, build_augmentations
from mambair.errors import UserError
from mambair.inference.tiling import TileRule
from mambair.inference.whole_or_tiled import Restoration
from mambair.losses import LossTerm
from mambair.models.optimizers import ScheduledOptimizer
from mambair.options import TestOptions, TrainOptions, ValOptions
from mambair.registry import LOSSES
from mambair.runtime.devices import autocast_dtype
from mambair.weights.loading import architecture_of, load_weights
from mambair.weights.sources import find_weights

logger = logging.getLogger(__name__)


def build_generator(options: TrainOptions | TestOptions) -> nn.Module:
    """The restoration network, with its pretrained weights if the file names some.

    Raises UserError for a block that does not describe a network and for weights that do not fit it.
    """
    network = build_network(options.network_g, where=options.where("network_g"))
    path = options.path
    if path.pretrain_network_g is not None:
        where = options.where("path.pretrain_network_g")
        start_from(network, path.pretrain_network_g, where, strict=path.strict_load_g, param_key=path.param_key_g)
    return network


def start_from(network: nn.Module, weights: Path, where: str, *, strict: bool, param_key: str | None) -> None:
    """Load weights, and log what was loaded and, where that is allowed, which keys were not.

    `weights` may be all that `find_weights` takes. Raises UserError that names the option key `where`.
    """
    try:
        path = find_weights(weights)
        skipped = load_weights(network, path, strict=strict, param_key=param_key)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    logger.info("%s starts from %s", architecture_of(network), path)
    if skipped:
        logger.warning("%s: %d weights of other shape start anew: %s", path, len(skipped), ", ".join(skipped))


PUBLISHED_SLOTS = {"l_pix": "pixel_opt", "l_percep": "perceptual_opt"}
"""Log name -> key of the losses that published files have."""


def build_losses(options: TrainOptions) -> dict[str, LossTerm]:
    """The losses that the `train` section has, by log name: those in the published slots, then those of its list.

    Raises UserError for one that cannot be built, and for one that needs an averaged network where there is none.
    """
    terms = {}
    for name, key in PUBLISHED_SLOTS.items():
        block = getattr(options.train, key)
        if block is not None:
            terms[name] = LossTerm(build_loss(block, options.where(f"train.{key}")))
    for index, section in enumerate(options.train.losses):
        where = options.where(f"train.losses.{index}")
        loss = build_loss(section.component, where)
        name = section.name or free_name(f"l_{section.type.removesuffix('Loss').lower()}", terms)
        if name in terms:
            raise UserError(f"{where}: two losses are called '{name}'; give this one another name")
        terms[name] = LossTerm(loss, weight=section.weight, on=section.on, from_iter=section.from_iter)
        if terms[name].wants_average and options.train.ema_decay == 0:
            raise UserError(
                f"{where}: {section.type} compares with the averaged network; set train.ema_decay, as 0.999"
                + (", or use_average: false" if section.type == "LDLLoss" else "")
            )
    return terms


def build_loss(block: Mapping[str, Any], where: str) -> Loss:
    """A loss that is called with (prediction, target)."""
    loss = LOSSES.build(block, where=where)
    if not callable(loss):
        remedy = "it belongs under train.gan_opt" if isinstance(loss, AdversarialLoss) else "make it an nn.Module"
        raise UserError(f"{where}: {block['type']} cannot be called as loss(prediction, target); {remedy}")
    return loss


def build_adversarial_loss(options: TrainOptions) -> AdversarialLoss:
    """The loss under train.gan_opt."""
    where = options.where("train.gan_opt")
    assert options.train.gan_opt is not None
    loss = LOSSES.build(options.train.gan_opt, where=where)
    if not isinstance(loss, AdversarialLoss):
        raise UserError(
            f"{where}: {options.train.gan_opt['type']} has no generator_loss(fake_logits) and "
            "discriminator_loss(real_logits, fake_logits); use GANLoss, or move it to train.losses"
        )
    return loss


def free_name(name: str, taken: Collection[str]) -> str:
    """`name`, with a number from 2 on behind it where it is taken."""
    numbered = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(candidate for candidate in numbered if candidate not in taken)


def build_mixing(options: TrainOptions) -> Augmentation | None:
    """What train.augmentations, or MixUp of train.mixing_augs, does with batches."""
    mixing = options.train.mixing_augs
    if mixing.mixup:
        return MixUp(mixing.mixup_beta, mixing.use_identity)
    return build_augmentations(options.train.augmentations, options.where, "train.augmentations", per_batch=True)


def build_optimizer(options: TrainOptions, key: str, network: nn.Module) -> ScheduledOptimizer:
    """The optimiser under `train.<key>` for a network, with the file's schedule and warm-up."""
    return ScheduledOptimizer(
        network,
        getattr(options.train, key),
        options.train.scheduler,
        warmup_iter=options.train.warmup_iter,
        where_optim=options.where(f"train.{key}"),
        where_scheduler=options.where("train.scheduler"),
    )


def build_restoration(val: ValOptions | None, device: torch.device) -> Restoration:
    """How images are restored according to the `val` section."""
    val = val or ValOptions()
    tile: TileRule = None
    if isinstance(val.tile, int):
        tile = val.tile
    elif val.tile == "published":
        tile = "published"
    return Restoration(tile, ensemble=val.self_ensemble, amp_dtype=autocast_dtype(val.amp, device))
