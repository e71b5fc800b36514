"""Training losses; importing this package registers them in LOSSES."""

from mambair.losses.adversarial import GANLoss
from mambair.losses.perceptual import PerceptualLoss
from mambair.losses.pixel import CharbonnierLoss, L1Loss, MSELoss

__all__ = ["CharbonnierLoss", "GANLoss", "L1Loss", "MSELoss", "PerceptualLoss"]
