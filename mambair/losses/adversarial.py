"""Adversarial losses on a discriminator's logits.

Logits have any shape (a U-Net discriminator gives one per pixel, (B, 1, H, W)) and are averaged over.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mambair.errors import UserError
from mambair.registry import LOSSES, did_you_mean

GAN_TYPES = ("vanilla", "lsgan", "hinge", "wgan", "wgan_softplus")


@LOSSES.register()
class GANLoss:
    """The two sides' losses of adversarial training.

    `gan_type`: vanilla (cross entropy), lsgan (squared error), hinge, wgan, or wgan_softplus (the non-saturating loss
    of StyleGAN). `real_label_val` and `fake_label_val` are the targets of vanilla and lsgan. `loss_weight` scales
    the generator's loss only.
    """

    def __init__(
        self,
        gan_type: str = "vanilla",
        real_label_val: float = 1.0,
        fake_label_val: float = 0.0,
        loss_weight: float = 1.0,
    ) -> None:
        if gan_type not in GAN_TYPES:
            hint = did_you_mean(gan_type, GAN_TYPES) or f"; known: {', '.join(GAN_TYPES)}"
            raise UserError(f"GANLoss: unknown gan_type '{gan_type}'{hint}")
        self.gan_type = gan_type
        self.labels = {True: real_label_val, False: fake_label_val}
        self.loss_weight = loss_weight

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        """Low where the discriminator takes restored images for real; a scalar."""
        logits = fake_logits.float()
        if self.gan_type == "hinge":
            return self.loss_weight * -logits.mean()
        return self.loss_weight * self._distance(logits, is_real=True)

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Low where the discriminator tells real from restored; a scalar, the sum over both."""
        real, fake = real_logits.float(), fake_logits.float()
        if self.gan_type == "hinge":
            return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        return self._distance(real, is_real=True) + self._distance(fake, is_real=False)

    def _distance(self, logits: Tensor, is_real: bool) -> Tensor:
        """How far logits are from saying that images are real (or restored)."""
        if self.gan_type in ("wgan", "wgan_softplus"):
            signed = -logits if is_real else logits
            return (F.softplus(signed) if self.gan_type == "wgan_softplus" else signed).mean()
        measure: Callable[..., Tensor] = (
            F.binary_cross_entropy_with_logits if self.gan_type == "vanilla" else F.mse_loss
        )
        return measure(logits, torch.full_like(logits, self.labels[is_real]))
