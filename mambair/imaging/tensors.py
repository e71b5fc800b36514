"""Image arrays to tensors and back."""

import numpy as np
import torch

from mambair.errors import UserError
from mambair.imaging.pixels import to_float


def image_to_tensor(image: np.ndarray) -> torch.Tensor:
    """HxWxC array (uint8, uint16, or float in [0, 1]) to a contiguous float32 CxHxW tensor in [0, 1]."""
    if image.ndim != 3:
        raise ValueError(f"expected an image of shape (H, W, C), got {image.shape}")
    return torch.from_numpy(np.ascontiguousarray(to_float(image).transpose(2, 0, 1)))


def tensor_to_image(tensor: torch.Tensor) -> np.ndarray:
    """CxHxW tensor in [0, 1] to a uint8 HxWxC array: clamped, times 255, rounded to nearest (ties to even).

    Raises UserError for values that are not finite: they would become a black picture.
    """
    if tensor.ndim != 3:
        raise ValueError(f"expected a tensor of shape (C, H, W), got {tuple(tensor.shape)}")
    if not tensor.isfinite().all():
        raise UserError("the image holds NaN or infinite values, which are no colours")
    scaled = tensor.detach().float().clamp(0, 1).mul(255).round()
    return np.ascontiguousarray(scaled.to(torch.uint8).cpu().numpy().transpose(1, 2, 0))
