import math

import pytest
import torch

from mambair.errors import UserError
from mambair.losses.adversarial import GAN_TYPES, GANLoss

REAL = torch.tensor([[2.0, -1.0]])
FAKE = torch.tensor([[0.5, -3.0]])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


EXPECTED = {
    "vanilla": ((softplus(-0.5) + softplus(3)) / 2, (softplus(-2) + softplus(1) + softplus(0.5) + softplus(-3)) / 2),
    "lsgan": ((0.5**2 + 4**2) / 2, (1 + 4 + 0.25 + 9) / 2),
    "hinge": (1.25, (0 + 2) / 2 + (1.5 + 0) / 2),
    "wgan": (1.25, -0.5 - 1.25),
    "wgan_softplus": (
        (softplus(-0.5) + softplus(3)) / 2,
        (softplus(-2) + softplus(1) + softplus(0.5) + softplus(-3)) / 2,
    ),
}


@pytest.mark.parametrize("gan_type", GAN_TYPES)
def test_values_by_hand(gan_type):
    loss = GANLoss(gan_type, loss_weight=0.1)
    generator, discriminator = EXPECTED[gan_type]
    assert loss.generator_loss(FAKE).item() == pytest.approx(0.1 * generator, rel=1e-5)
    assert loss.discriminator_loss(REAL, FAKE).item() == pytest.approx(discriminator, rel=1e-5)


def test_labels_are_the_targets():
    loss = GANLoss("lsgan", real_label_val=0.5, fake_label_val=-3.0)
    assert loss.discriminator_loss(torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 2, 2), -3.0)).item() == 0


@pytest.mark.parametrize("gan_type", GAN_TYPES)
def test_gradients_point_the_right_way(gan_type):
    loss = GANLoss(gan_type)
    logits = torch.zeros(4, requires_grad=True)
    loss.generator_loss(logits).backward()
    assert (logits.grad < 0).all()  # descending raises the logits of restored images
    real, fake = (torch.full((4,), 0.3, requires_grad=True) for _ in range(2))
    loss.discriminator_loss(real, fake).backward()
    assert (real.grad < 0).all() and (fake.grad > 0).all()


def test_half_precision_logits_are_computed_in_float32():
    assert GANLoss("vanilla").generator_loss(FAKE.bfloat16()).dtype == torch.float32


def test_unknown_type_is_explained():
    with pytest.raises(UserError, match="did you mean 'vanilla'"):
        GANLoss("vanila")
