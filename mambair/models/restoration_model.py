"""The model of every task but the adversarial one: one network, pixel (and perceptual) losses, tiled restoration.

Shapes: B images, C channels, H x W pixels of the low-quality input, s the scale of the network.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mambair.contracts import Augmentation, Loss
from mambair.inference.whole_or_tiled import Restoration
from mambair.losses import LossTerm
from mambair.models.base_model import Batch, Phase, TrainableModel
from mambair.models.components import (
    build_generator,
    build_losses,
    build_mixing,
    build_optimizer,
    build_restoration,
)
from mambair.options import TrainOptions
from mambair.registry import MODELS
from mambair.runtime.devices import autocast_dtype


@MODELS.register("ImageCleanModel")
@MODELS.register("MambaIRv2Model")
@MODELS.register("MambaIRv2LightModel")
@MODELS.register("MambaIRModel")
class RestorationModel(TrainableModel):
    """One network that maps LQ to GT, trained with the sum of the given losses.

    Batches hold "lq" (B, C, H, W) and "gt" (B, C, s*H, s*W), float in [0, 1]. ImageCleanModel, the name that option
    files of real denoising use, is the same model: `mixing` is what such files add.

    Args:
        network: see `mambair.archs.RestorationNetwork`.
        device: where to compute.
        losses: by the names logs show (l_pix); each is called with (prediction, gt).
        mixing: changes the pairs of a batch before the network sees them.
        restoration: how images are restored in validation and tests.
        amp_dtype: autocast to it in training, None for full precision.
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
    ) -> None:
        super().__init__({"net_g": network}, device, amp_dtype)
        terms = {name: loss if isinstance(loss, LossTerm) else LossTerm(loss) for name, loss in (losses or {}).items()}
        self.losses = {name: term.to(device) for name, term in terms.items()}
        self.mixing = mixing
        self.restoration = restoration or Restoration()

    @classmethod
    def from_options(cls, options: TrainOptions, device: torch.device) -> "RestorationModel":
        """The model that an option file describes, ready to be trained."""
        train = options.train
        model = cls(
            build_generator(options),
            device=device,
            losses=build_losses(options),
            mixing=build_mixing(options),
            restoration=build_restoration(options.val, device),
            amp_dtype=autocast_dtype(train.amp, device),
        )
        model.optimizers["net_g"] = build_optimizer(options, "optim_g", model.networks["net_g"])
        model.add_average("net_g", train.ema_decay, train.ema_warmup)
        return model

    def phases(self, iteration: int) -> Sequence[Phase]:
        return (Phase("net_g", self.training_step, variant=" ".join(self.active_losses(iteration))),)

    def active_losses(self, iteration: int | None) -> dict[str, LossTerm]:
        """The losses that count after `iteration` completed steps; all of them for None."""
        return {name: term for name, term in self.losses.items() if iteration is None or iteration >= term.from_iter}

    def prepare(self, batch: Batch, rng: np.random.Generator) -> Batch:
        return self.mixed(self.on_device(batch), rng)

    def mixed(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """The batch after what `mixing` does with its pairs."""
        if self.mixing is not None:
            batch["lq"], batch["gt"] = self.mixing(batch["lq"], batch["gt"], rng)
        return batch

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a prepared micro-batch."""
        with self.autocast():
            prediction = self.wrapped("net_g")(batch["lq"])
        return self.loss_values(batch, prediction)

    def loss_values(
        self, batch: Batch, prediction: Tensor, targets: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The losses that count now, of what the network made of a batch; `targets` are those other than "gt"."""
        terms = self.active_losses(batch.get("iteration"))
        averaged = None
        if any(term.wants_average for term in terms.values()) and "net_g" in self.averages:
            with torch.no_grad(), self.autocast():
                averaged = self.averages["net_g"].module(batch["lq"])
        return {
            name: term(prediction, (targets or {}).get(name, batch["gt"]), averaged) for name, term in terms.items()
        }

    def restore(self, lq: Tensor) -> Tensor:
        """As the averaged network (EMA) does if there is one."""
        average = self.averages.get("net_g")
        network = self.networks["net_g"] if average is None else average.module
        return self.restoration(network, lq.to(self.device))
