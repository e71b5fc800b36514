"""The image types that `Restorer.restore` takes, as tensors and back.

Shapes: B images, C channels (1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha), H x W pixels, s the network's scale.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from mambair.errors import UserError
from mambair.imaging.decoding import to_plain_mode
from mambair.imaging.pixels import to_float
from mambair.imaging.profiles import is_for_cmyk

# Float images are in [0, 1]; sharpening filters and interpolation overshoot by less than this.
FLOAT_TOLERANCE = 0.5


@dataclass(frozen=True)
class Unpacked:
    """An image, or an array of images, as one tensor, with the way back."""

    planes: torch.Tensor
    """(B, C, H, W) float32 in [0, 1], C from 1 to 4, on the CPU unless the image was a tensor elsewhere."""
    pack: Callable[[torch.Tensor], Any]
    """(B, C, s*H, s*W) in [0, 1] -> the type, layout and depth of the image that came in."""


def unpack_image(image: Any) -> Unpacked:
    """Make a tensor of a NumPy, PIL or torch image; see `Restorer.restore` for what is taken.

    Raises UserError for other types, layouts, depths and ranges.
    """
    if isinstance(image, Image.Image):
        return _unpack_pil(image)
    if isinstance(image, torch.Tensor):
        return _unpack_tensor(image)
    if isinstance(image, np.ndarray):
        return _unpack_array(image)
    raise UserError(
        f"cannot restore a {type(image).__name__}; pass a NumPy array, a PIL image, a torch tensor, or a list of them"
    )


def _unpack_array(array: np.ndarray) -> Unpacked:
    """(H, W), (H, W, C) or (N, H, W, C) of uint8, uint16 or floats."""
    dtype, shape = array.dtype, array.shape
    if dtype not in (np.uint8, np.uint16) and not np.issubdtype(dtype, np.floating):
        raise UserError(f"cannot restore {dtype} pixels; convert to uint8, uint16, or floats in [0, 1]")
    if array.ndim not in (2, 3, 4) or 0 in shape or (array.ndim > 2 and shape[-1] > 4):
        raise UserError(f"image of shape {shape}; expected (H, W), (H, W, C) or (N, H, W, C) with 1 to 4 channels C")
    batch = array.reshape(shape[0], shape[1], 1) if array.ndim == 2 else array
    batch = batch if batch.ndim == 4 else batch[None]
    planes = torch.from_numpy(np.array(to_float(batch).transpose(0, 3, 1, 2), order="C"))  # a copy, writable
    if np.issubdtype(dtype, np.floating):
        _check_range(planes)

    def pack(restored: torch.Tensor) -> np.ndarray:
        restored = restored.permute(0, 2, 3, 1)  # (B, s*H, s*W, C)
        if np.issubdtype(dtype, np.integer):  # rounded where the result lies: a GPU takes no time for it
            restored = restored.mul(np.iinfo(dtype).max).round_()
        if dtype == np.uint8:
            restored = restored.to(torch.uint8)
        images = np.ascontiguousarray(restored.contiguous().cpu().numpy().astype(dtype, copy=False))
        if len(shape) == 2:
            return images[0, :, :, 0]
        return images[0] if len(shape) == 3 else images

    return Unpacked(planes, pack)


def _unpack_tensor(tensor: torch.Tensor) -> Unpacked:
    """(C, H, W) or (B, C, H, W) of uint8 or floats."""
    dtype, device, shape = tensor.dtype, tensor.device, tuple(tensor.shape)
    if dtype != torch.uint8 and not dtype.is_floating_point:
        raise UserError(f"cannot restore a tensor of {dtype}; convert to torch.uint8, or floats in [0, 1]")
    if tensor.ndim not in (3, 4) or 0 in shape or shape[-3] > 4:
        raise UserError(f"tensor of shape {shape}; expected (C, H, W) or (B, C, H, W) with 1 to 4 channels C")
    planes = tensor.detach().reshape(-1, *shape[-3:]).float().contiguous()  # so that strides change no result
    if dtype == torch.uint8:
        planes = planes / 255
    else:
        _check_range(planes)

    def pack(restored: torch.Tensor) -> torch.Tensor:
        restored = restored.to(device)
        restored = restored.mul(255).round().to(torch.uint8) if dtype == torch.uint8 else restored.to(dtype)
        return restored[0] if len(shape) == 3 else restored

    return Unpacked(planes, pack)


def _unpack_pil(image: Image.Image) -> Unpacked:
    """Any mode that has a gray or RGB meaning; turned upright by the EXIF orientation."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("I", "F"):
        raise UserError(f"cannot restore a PIL image of mode '{upright.mode}'; convert it to L, RGB, RGBA or I;16")
    if not upright.mode.startswith("I;16"):
        upright = to_plain_mode(upright)
    unpacked = _unpack_array(np.asarray(upright))
    mode = upright.mode
    kept = [key for key in ("icc_profile", "dpi") if key in upright.info]
    if is_for_cmyk(upright.info.get("icc_profile") or b""):  # of the inks that the colours were converted from
        kept.remove("icc_profile")
    info: dict[str | tuple[int, int], Any] = {key: upright.info[key] for key in kept}

    def pack(restored: torch.Tensor) -> Image.Image:
        pixels = unpacked.pack(restored)
        packed = Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
        assert packed.mode == mode or mode.startswith("I;16")
        packed.info.update(info)
        return packed

    return Unpacked(unpacked.planes, pack)


def _check_range(planes: torch.Tensor) -> None:
    low, high = planes.aminmax()
    # Written so that NaN fails too.
    if not (low >= -FLOAT_TOLERANCE and high <= 1 + FLOAT_TOLERANCE):
        raise UserError(
            f"float image with values from {low:.4g} to {high:.4g}; expected [0, 1]: divide by its largest value, "
            "or pass uint8 or uint16"
        )


def joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """The parts along the first dimension; torch.cat would copy even a single one."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def group_by_size(images: Sequence[Unpacked], batch: int) -> Iterator[list[Unpacked]]:
    """Cut a list into runs of images of the same (C, H, W), each run with at most `batch` images in all."""
    group: list[Unpacked] = []
    for unpacked in images:
        full = sum(len(other.planes) for other in group) + len(unpacked.planes) > batch
        if group and (full or unpacked.planes.shape[1:] != group[0].planes.shape[1:]):
            yield group
            group = []
        group.append(unpacked)
    if group:
        yield group
