"""Losses between the Fourier transforms of images.

Shapes: images (B, C, H, W); transforms (B, C, H, W), complex, of each channel by itself.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from mambair.errors import UserError
from mambair.registry import LOSSES

FOURIER_KINDS = ("complex", "amplitude_phase")


@LOSSES.register()
class FourierLoss(nn.Module):
    """Mean absolute difference of two-dimensional Fourier transforms.

    Args:
        loss_weight: factor.
        kind: complex compares real and imaginary parts (MIMO-UNet, SAFMN and others); amplitude_phase compares
            amplitudes and, times `phase_weight`, angles (Fuoli et al., 2021), a difference of angles counting as the
            shorter way round, 0 to pi.
        phase_weight: factor of the angles.
        norm: backward, the transform as published losses use it, whose numbers grow with the patch; ortho, the one that
            keeps the energy, whose numbers do not.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        kind: str = "complex",
        phase_weight: float = 1.0,
        norm: Literal["backward", "ortho"] = "backward",
    ) -> None:
        super().__init__()
        if kind not in FOURIER_KINDS:
            raise UserError(f"FourierLoss: kind '{kind}' is not known; use {' or '.join(FOURIER_KINDS)}")
        self.loss_weight = loss_weight
        self.kind = kind
        self.phase_weight = phase_weight
        self.norm = norm

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        given, aim = (torch.fft.fft2(images, norm=self.norm) for images in (prediction, target))
        if self.kind == "complex":
            return self.loss_weight * torch.view_as_real(given - aim).abs().mean()
        amplitude = (given.abs() - aim.abs()).abs().mean()
        phase = (given * aim.conj()).angle().abs().mean()
        return self.loss_weight * (amplitude + self.phase_weight * phase)
