"""Stage 1 of real-world super-resolution: pixel loss on pairs that are degraded on the device.

Shapes: B images, g x g pixels of a ground-truth patch, s the scale.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from mambair.contracts import Augmentation, Loss
from mambair.data.degradations.filters import sharpen
from mambair.data.degradations.pair_maker import PairMaker
from mambair.data.degradations.second_order import RoundSettings
from mambair.errors import UserError
from mambair.inference.whole_or_tiled import Restoration
from mambair.models.base_model import Batch
from mambair.models.components import build_generator, build_losses, build_mixing, build_optimizer, build_restoration
from mambair.models.restoration_model import RestorationModel
from mambair.options import TrainOptions
from mambair.registry import MODELS
from mambair.runtime.devices import autocast_dtype


def build_pair_maker(options: TrainOptions) -> PairMaker | None:
    """What degrades a RealESRGANDataset's batches; None for data sets that give pairs.

    Raises UserError where the option file's keys contradict each other.
    """
    dataset = options.datasets["train"]
    if dataset.type != "RealESRGANDataset":
        return None
    if not options.high_order_degradation:
        raise UserError(
            f"{options.where('high_order_degradation')}: is false, but RealESRGANDataset has no low-quality images; "
            "use PairedImageDataset with dataroot_lq"
        )
    gt_size = options.gt_size or dataset.gt_size
    if gt_size is None or gt_size % options.scale:
        raise UserError(f"{options.where('gt_size')}: must be given, as a multiple of scale {options.scale}")
    return PairMaker(options.scale, gt_size, options.queue_size, *_rounds(options), sharpened=options.lq_usm)


def _rounds(options: TrainOptions) -> tuple[RoundSettings, RoundSettings]:
    """The settings of both rounds; the option file's names for the second round's end in 2."""
    keys = {
        "resize_odds": "resize_prob",
        "resize": "resize_range",
        "gaussian_odds": "gaussian_noise_prob",
        "noise": "noise_range",
        "poisson": "poisson_scale_range",
        "gray_odds": "gray_noise_prob",
        "jpeg": "jpeg_range",
    }

    def settings(blur_odds: float, suffix: str) -> RoundSettings:
        values: dict[str, Any] = {field: _frozen(getattr(options, f"{key}{suffix}")) for field, key in keys.items()}
        return RoundSettings(blur_odds=blur_odds, **values)

    return settings(1.0, ""), settings(options.second_blur_prob, "2")


def _frozen(value: float | list[float]) -> float | tuple[float, ...]:
    return tuple(value) if isinstance(value, list) else value


class PairSource:
    """The step from a loader's batch to pairs that real-world models share: degradation on the device, if any.

    Its state, the pair queue, belongs to one process; a run that goes on with more processes than before lets the
    additional ones begin with copies.
    """

    def __init__(self, maker: PairMaker | None, device: torch.device) -> None:
        self.maker = maker
        self.device = device

    def pairs(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """The batch (on the device) with "gt" (B, 3, g, g) and "lq" (B, 3, g/s, g/s), g the patch size."""
        if self.maker is not None:
            batch["gt"], batch["lq"] = self.maker.make(batch, rng)
        return batch

    def state(self) -> dict[str, Any]:
        """For checkpoints."""
        return {} if self.maker is None else {"pair_queue": self.maker.state_dict()}

    def load_state(self, states: Sequence[Mapping[str, Any]], rank: int) -> None:
        """Take back one of the states that all processes of the saved run gave."""
        if self.maker is not None and states:
            self.maker.load_state_dict(states[rank % len(states)].get("pair_queue", {}), self.device)


def refuse_mixing(options: TrainOptions) -> None:
    """The published section is for models of real denoising alone."""
    if options.train.mixing_augs.mixup:
        raise UserError(
            f"{options.where('train.mixing_augs')}: MixUp is not for {options.model_type}; remove the section, "
            "or write augmentations: [{type: MixUp}]"
        )


@MODELS.register("RealESRNetModel")
class RealSRModel(RestorationModel):
    """A restoration model whose pairs are degraded on the device from a RealESRGANDataset's batches.

    Arguments are RestorationModel's and:
        pair_maker: degrades, crops and mixes batches; None takes pairs as the loader gives them.
        sharpen_target: the losses compare with sharpened (unsharp-masked) ground truth.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: torch.device,
        losses: Mapping[str, Loss] | None = None,
        mixing: Augmentation | None = None,
        restoration: Restoration | None = None,
        amp_dtype: torch.dtype | None = None,
        pair_maker: PairMaker | None = None,
        sharpen_target: bool = True,
    ) -> None:
        super().__init__(
            network, device=device, losses=losses, mixing=mixing, restoration=restoration, amp_dtype=amp_dtype
        )
        self.source = PairSource(pair_maker, device)
        self.sharpen_target = sharpen_target

    @classmethod
    def from_options(cls, options: TrainOptions, device: torch.device) -> "RealSRModel":
        """The model that an option file describes, ready to be trained."""
        refuse_mixing(options)
        train = options.train
        model = cls(
            build_generator(options),
            device=device,
            losses=build_losses(options),
            mixing=build_mixing(options),
            restoration=build_restoration(options.val, device),
            amp_dtype=autocast_dtype(train.amp, device),
            pair_maker=build_pair_maker(options),
            sharpen_target=options.l1_gt_usm,
        )
        model.optimizers["net_g"] = build_optimizer(options, "optim_g", model.networks["net_g"])
        model.add_average("net_g", train.ema_decay, train.ema_warmup)
        return model

    def prepare(self, batch: Batch, rng: np.random.Generator) -> Batch:
        batch = self.source.pairs(self.on_device(batch), rng)
        batch = self.mixed(batch, rng)
        if self.sharpen_target:
            batch["gt"] = sharpen(batch["gt"])
        return batch

    def extra_state(self) -> dict[str, Any]:
        return self.source.state()

    def load_extra_state(self, states: Sequence[Mapping[str, Any]], rank: int) -> None:
        self.source.load_state(states, rank)
