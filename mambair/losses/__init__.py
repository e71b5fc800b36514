"""Training losses; importing this package registers them in LOSSES."""

from mambair.losses.adversarial import GANLoss
from mambair.losses.artifacts import LDLLoss
from mambair.losses.colors import ColorLoss
from mambair.losses.edges import GradientLoss
from mambair.losses.frequency import FourierLoss
from mambair.losses.learned import DISTSLoss, LPIPSLoss
from mambair.losses.perceptual import PerceptualLoss
from mambair.losses.pixel import CharbonnierLoss, L1Loss, MSELoss
from mambair.losses.structural import MSSSIMLoss
from mambair.losses.terms import LossTerm

__all__ = [
    "CharbonnierLoss",
    "ColorLoss",
    "DISTSLoss",
    "FourierLoss",
    "GANLoss",
    "GradientLoss",
    "L1Loss",
    "LDLLoss",
    "LPIPSLoss",
    "LossTerm",
    "MSELoss",
    "MSSSIMLoss",
    "PerceptualLoss",
]
