"""Gradients of the weights of a classic CAB's convolutions, by the operator's kernels and in float64."""

import torch
from torch import Tensor

from mambair.ops.rssb.local_key import LocalHalf
from mambair.ops.rssb.parameters import ClassicParameters
from mambair.ops.rssb.rows import padded
from mambair.ops.rssb.weights import OwnWeights, Tile, choose_tile

NAMES = ("first_weight", "second_weight", "first_bias")


def tile_of(C: int, J: int, dtype: torch.dtype) -> Tile:
    """What is chosen for C -> J -> C channels, where own kernels are."""
    tile = choose_tile(padded(C, dtype), padded(J, dtype))
    assert tile is not None
    return tile


def random_image(shape: tuple[int, int, int], channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(B, channels as convolutions take them, H, W), channels-last; of any value beyond `channels`."""
    width = padded(channels, dtype)
    generator = torch.Generator().manual_seed(channels)
    image = torch.randn(*shape, width, generator=generator, dtype=torch.float64).to(device, dtype)
    image[..., channels:] = 7.0
    return image.permute(0, 3, 1, 2)


def both_outcomes(
    shape: tuple[int, int, int], C: int, J: int, dtype: torch.dtype, parameter: torch.dtype, device: torch.device,
    tile: Tile,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:  # fmt: skip
    """(found, expected) of the convolutions C -> J -> C of images (B, H, W)."""
    key = LocalHalf(False, *shape, C, J, 4, torch.float32, dtype, parameter, 1e-5, device)
    wide = [random_image(shape, C, dtype, device) for _ in range(2)]
    narrow = [random_image(shape, J, dtype, device) for _ in range(2)]
    wide[1], narrow[1] = wide[1].flip(2), narrow[1].flip(3)
    wide[1], narrow[1] = (each.contiguous(memory_format=torch.channels_last) for each in (wide[1], narrow[1]))
    parts = torch.randn(key.rows.parts(padded(J, dtype)), J, generator=torch.Generator().manual_seed(J)).to(device)
    empty = torch.empty(0, device=device)

    def poisoned(*sizes: int) -> Tensor:
        return torch.full(sizes, torch.nan, dtype=parameter, device=device)

    d = ClassicParameters(poisoned(J, C, 3, 3), poisoned(J), poisoned(C, J, 3, 3), empty)
    own = OwnWeights(key, tile)
    own(wide[0], narrow[0], empty, narrow[1], wide[1], empty, parts.data_ptr(), d)
    wide, narrow = [each[:, :C].double() for each in wide], [each[:, :J].double() for each in narrow]
    expected = {
        "first_weight": torch.nn.grad.conv2d_weight(wide[0], (J, C, 3, 3), narrow[0], padding=1),
        "second_weight": torch.nn.grad.conv2d_weight(narrow[1], (C, J, 3, 3), wide[1], padding=1),
        "first_bias": parts.double().sum(0),
    }
    return {name: getattr(d, name) for name in NAMES}, expected


def sums_outcomes(
    shape: tuple[int, int, int], C: int, J: int, device: torch.device, tile: Tile
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(found, expected) of the kernel that sums the parts, of random parts, as for images (B, H, W)."""
    key = LocalHalf(False, *shape, C, J, 4, torch.float32, torch.float16, torch.float32, 1e-5, device)
    own, block = OwnWeights(key, tile), max(16, 1 << (J - 1).bit_length())
    count = own.work.size // (2 * 9 * C * block * 4)
    generator = torch.Generator().manual_seed(count)
    parts = torch.randn(count, 2, 9, C, block, generator=generator, dtype=torch.float64)
    bias_parts = torch.randn(key.rows.parts(padded(J, torch.float16)), J, generator=generator, dtype=torch.float64)
    first, second = parts[..., :J].sum(0)
    expected = {
        "first_weight": first.flip(0).permute(2, 1, 0).reshape(J, C, 3, 3),
        "second_weight": second.permute(1, 2, 0).reshape(C, J, 3, 3),
        "first_bias": bias_parts.sum(0),
    }
    found = {
        name: torch.full(tensor.shape, torch.nan, dtype=torch.float32, device=device)
        for name, tensor in expected.items()
    }
    sources = [parts.to(device, torch.float32), bias_parts.to(device, torch.float32)]
    own.sum(*(tensor.data_ptr() for tensor in (*sources, *found.values())))
    return found, expected
