"""Stage 2 of real-world super-resolution: pixel, perceptual and adversarial losses with a discriminator.

Shapes: B images, g x g pixels of a ground-truth patch, s the scale.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mambair.archs import build_network
from mambair.contracts import AdversarialLoss, Augmentation, Loss
from mambair.data.degradations.filters import sharpen
from mambair.data.degradations.pair_maker import PairMaker
from mambair.errors import UserError
from mambair.inference.whole_or_tiled import Restoration
from mambair.models.base_model import Batch, Phase
from mambair.models.components import (
    build_adversarial_loss,
    build_generator,
    build_losses,
    build_mixing,
    build_optimizer,
    build_restoration,
    start_from,
)
from mambair.models.real_sr_model import PairSource, build_pair_maker, refuse_mixing
from mambair.models.restoration_model import RestorationModel
from mambair.options import TrainOptions
from mambair.registry import MODELS
from mambair.runtime.devices import autocast_dtype


@dataclass(frozen=True)
class SharpenedTargets:
    """Which losses see sharpened (unsharp-masked) ground truth.

    Real-ESRGAN sharpens it for the pixel and perceptual losses, and shows the discriminator real photos, so that it
    does not ask for the halos of sharpening.
    """

    pixel: bool = True
    perceptual: bool = True
    adversarial: bool = False


@dataclass(frozen=True)
class Alternation:
    """When the generator is stepped: every `every` steps, and not during the first `after` steps of the run."""

    every: int = 1
    after: int = 0

    def includes_generator(self, iteration: int) -> bool:
        """Whether the step that follows `iteration` completed ones is also the generator's."""
        step = iteration + 1
        return step % self.every == 0 and step > self.after


@MODELS.register("RealESRGANModel")
@MODELS.register("MambaIRGANModel")
class AdversarialModel(RestorationModel):
    """A restoration network and a discriminator that learn from each other.

    Arguments are RestorationModel's and:
        discriminator: maps images (B, 3, H, W) to logits of any shape.
        gan_loss: both sides' adversarial loss.
        pair_maker: degrades, crops and mixes batches; None takes pairs as the loader gives them.
        sharpened: which losses see sharpened ground truth.
        alternation: when the generator is stepped; the discriminator always is.
    """

    def __init__(
        self,
        network: nn.Module,
        discriminator: nn.Module,
        *,
        device: torch.device,
        gan_loss: AdversarialLoss,
        losses: Mapping[str, Loss] | None = None,
        mixing: Augmentation | None = None,
        restoration: Restoration | None = None,
        amp_dtype: torch.dtype | None = None,
        pair_maker: PairMaker | None = None,
        sharpened: SharpenedTargets | None = None,
        alternation: Alternation | None = None,
    ) -> None:
        super().__init__(
            network, device=device, losses=losses, mixing=mixing, restoration=restoration, amp_dtype=amp_dtype
        )
        self.networks["net_d"] = self._callable["net_d"] = discriminator.to(device)
        self.gan_loss = gan_loss
        self.source = PairSource(pair_maker, device)
        self.sharpened = sharpened or SharpenedTargets()
        self.alternation = alternation or Alternation()

    @classmethod
    def from_options(cls, options: TrainOptions, device: torch.device) -> "AdversarialModel":
        """The model that an option file describes, ready to be trained."""
        refuse_mixing(options)
        train = options.train
        needed("train.optim_d", train.optim_d, options)
        needed("train.gan_opt", train.gan_opt, options)
        model = cls(
            build_generator(options),
            build_discriminator(options),
            device=device,
            gan_loss=build_adversarial_loss(options),
            losses=build_losses(options),
            mixing=build_mixing(options),
            restoration=build_restoration(options.val, device),
            amp_dtype=autocast_dtype(train.amp, device),
            pair_maker=build_pair_maker(options),
            sharpened=SharpenedTargets(options.l1_gt_usm, options.percep_gt_usm, options.gan_gt_usm),
            alternation=Alternation(train.net_d_iters, train.net_d_init_iters),
        )
        model.optimizers["net_g"] = build_optimizer(options, "optim_g", model.networks["net_g"])
        model.optimizers["net_d"] = build_optimizer(options, "optim_d", model.networks["net_d"])
        model.add_average("net_g", train.ema_decay, train.ema_warmup)
        return model

    def prepare(self, batch: Batch, rng: np.random.Generator) -> Batch:
        batch = self.mixed(self.source.pairs(self.on_device(batch), rng), rng)
        flags = (self.sharpened.pixel, self.sharpened.perceptual, self.sharpened.adversarial)
        batch["gt_sharp"] = sharpen(batch["gt"]) if any(flags) else batch["gt"]
        return batch

    def phases(self, iteration: int) -> Sequence[Phase]:
        discriminator = Phase("net_d", self.discriminator_step)
        if not self.alternation.includes_generator(iteration):
            return (discriminator,)
        return Phase("net_g", self.generator_step, frozen=("net_d",)), discriminator

    def generator_step(self, batch: Batch) -> dict[str, Tensor]:
        """The generator's losses of a prepared micro-batch; leaves the restored images in the batch."""
        with self.autocast():
            restored = self.wrapped("net_g")(batch["lq"])
            # The bare network: a distributed wrapper would wait for gradients that a frozen network does not get.
            logits = self.networks["net_d"](restored)
        batch["restored"] = restored.detach()
        sharp = dict.fromkeys(self.losses, self.sharpened.pixel) | {"l_percep": self.sharpened.perceptual}
        targets = {name: batch["gt_sharp"] for name, is_sharp in sharp.items() if is_sharp}
        losses = self.loss_values(batch, restored, targets)
        return {**losses, "l_g_gan": self.gan_loss.generator_loss(logits)}

    def discriminator_step(self, batch: Batch) -> dict[str, Tensor]:
        """The discriminator's loss of a prepared micro-batch, and its mean logits (without gradient) for the log."""
        real = batch["gt_sharp"] if self.sharpened.adversarial else batch["gt"]
        with self.autocast():
            if "restored" not in batch:
                with torch.no_grad():
                    batch["restored"] = self.networks["net_g"](batch["lq"])
            # One forward pass for both: no layer of the discriminators here looks across a batch.
            images = torch.cat([real, batch["restored"].to(real.dtype)])
            real_logits, fake_logits = self.wrapped("net_d")(images).chunk(2)
        return {
            "l_d": self.gan_loss.discriminator_loss(real_logits, fake_logits),
            "out_d_real": real_logits.detach().float().mean(),
            "out_d_fake": fake_logits.detach().float().mean(),
        }

    def extra_state(self) -> dict[str, Any]:
        return self.source.state()

    def load_extra_state(self, states: Sequence[Mapping[str, Any]], rank: int) -> None:
        self.source.load_state(states, rank)


def needed(key: str, block: dict[str, Any] | None, options: TrainOptions) -> dict[str, Any]:
    """The option block `key`. Raises UserError where the file lacks it."""
    if block is None:
        raise UserError(f"{options.where(key)}: is missing; {options.model_type} trains against a discriminator")
    return block


def build_discriminator(options: TrainOptions) -> nn.Module:
    """The discriminator, with its pretrained weights if the file names some."""
    network_d = needed("network_d", options.network_d, options)
    network = build_network(network_d, where=options.where("network_d"), restores=False)
    path = options.path
    if path.pretrain_network_d is not None:
        where = options.where("path.pretrain_network_d")
        start_from(network, path.pretrain_network_d, where, strict=path.strict_load_d, param_key=path.param_key_d)
    return network
