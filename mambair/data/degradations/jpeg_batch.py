"""JPEG compression and decompression of a batch of images on their device, one quality per image.

The lossy part of baseline JPEG as libjpeg (so OpenCV and Pillow) does it with its defaults: BT.601 YCbCr, chroma halved
both ways (4:2:0), 8x8 DCT, the standard's example tables scaled by quality, chroma interpolated back ("fancy"
upsampling). Entropy coding is lossless and left out. Measured against OpenCV on a photo, qualities 5 to 95, the PSNR
to the original differs by at most 0.06 dB. kornia's codec is made for gradients: its soft rounding keeps part of each
quantization error and was measured 0.2 to 0.8 dB too mild between qualities 95 and 10, so it is not used.

Shapes: B images, H x W pixels padded to multiples of 16, N blocks of 8x8.
"""

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

# ITU-T T.81, tables K.1 and K.2.
LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
RGB_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
YCBCR_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def jpeg_batch(images: Tensor, quality: Tensor) -> Tensor:
    """What (B, 3, H, W) in [0, 1] look like after JPEG compression; rounded to the 255 grid, as decoded files are.

    `quality` (B,) is 1 to 100; fractions are cut off as an encoder's integer parameter would.
    """
    batch, channels, height, width = images.shape
    assert channels == 3 and quality.shape == (batch,)
    pixels = (images.clamp(0, 1) * 255).round()
    padded = F.pad(pixels, (0, -width % 16, 0, -height % 16), mode="replicate")
    ycbcr = _mix(padded, RGB_TO_YCBCR).round()  # zero-centred chroma
    luma = _quantize_blocks(ycbcr[:, :1] - 128, _scaled_table(LUMA_TABLE, quality)) + 128
    halved = F.avg_pool2d(ycbcr[:, 1:], 2).round()
    halved = _quantize_blocks(halved, _scaled_table(CHROMA_TABLE, quality))
    # Weights 3/4 and 1/4: libjpeg's "fancy" upsampling is bilinear interpolation between pixel centres.
    chroma = F.interpolate(halved, scale_factor=2, mode="bilinear", align_corners=False)
    decoded = _mix(torch.cat([luma, chroma], dim=1), YCBCR_TO_RGB).round().clamp(0, 255)
    return decoded[..., :height, :width] / 255


def _mix(images: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """Multiply the channels of (B, 3, H, W) by a 3x3 matrix."""
    return torch.einsum("oc,bchw->bohw", images.new_tensor(matrix), images)


def _scaled_table(table: tuple[tuple[int, ...], ...], quality: Tensor) -> Tensor:
    """Quantization steps (B, 8, 8) for each quality, by libjpeg's rule."""
    quality = quality.floor().clamp(1, 100)
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    return ((quality.new_tensor(table) * percent.view(-1, 1, 1) + 50) / 100).floor().clamp(1, 255)


@functools.cache
def _dct_matrix() -> tuple[tuple[float, ...], ...]:
    """The orthonormal 8-point DCT-II, rows are frequencies."""
    scale = [math.sqrt(1 / 8)] + [math.sqrt(2 / 8)] * 7
    return tuple(tuple(scale[k] * math.cos((2 * n + 1) * k * math.pi / 16) for n in range(8)) for k in range(8))


def _quantize_blocks(planes: Tensor, steps: Tensor) -> Tensor:
    """DCT, quantization with steps (B, 8, 8), and back, of each 8x8 block of (B, C, H, W); pixels rounded."""
    dct = planes.new_tensor(_dct_matrix())
    blocks = planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)  # (B, C, H/8, W/8, 8, 8)
    steps = steps[:, None, None, None]
    coefficients = ((dct @ blocks @ dct.T) / steps).round() * steps
    restored = (dct.T @ coefficients @ dct).round()
    return restored.transpose(3, 4).flatten(4, 5).flatten(2, 3)
