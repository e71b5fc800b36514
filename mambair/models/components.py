"""Option sections -> the parts that models are made of. Each error names the option file, line and key."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

import mambair.losses  # noqa: F401  (registers the losses)
from mambair.archs import build_network
from mambair.errors import UserError
from mambair.inference.tiling import TileRule
from mambair.inference.whole_or_tiled import Restoration
from mambair.models.mixing import MixUp
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


def build_losses(options: TrainOptions, keys: Mapping[str, str]) -> dict[str, nn.Module]:
    """The losses that the `train` section has, by log name; `keys` maps log names to keys such as pixel_opt."""
    blocks = {name: getattr(options.train, key) for name, key in keys.items()}
    return {
        name: LOSSES.build(block, where=options.where(f"train.{keys[name]}"))
        for name, block in blocks.items()
        if block is not None
    }


def build_mixing(options: TrainOptions) -> MixUp | None:
    """MixUp if train.mixing_augs asks for it."""
    mixing = options.train.mixing_augs
    return MixUp(mixing.mixup_beta, mixing.use_identity) if mixing.mixup else None


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
