"""Training losses; importing this package registers them in LOSSES."""

from mambair.losses.pixel import CharbonnierLoss, L1Loss, MSELoss

__all__ = ["CharbonnierLoss", "L1Loss", "MSELoss"]
