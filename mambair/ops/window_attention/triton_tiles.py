"""How the kernels of window attention are cut, from the shared memory that they need and that the GPU has.

Shapes: L pixels of a window and D channels of a head, both padded to powers of two.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton

# Pixels of a window: the kernel of the table's gradient holds as many as 2w values for each.
MAX_PIXELS = 256
# Bytes of a head's channels: with more, nearly all registers are spilled (seen in Triton 3.8's code).
MAX_HEAD_BYTES = 256
# Before it Triton makes no use of tensor cores; whether the kernels would still be faster than PyTorch's is not known.
MIN_CAPABILITY = (8, 0)
# Of a GPU by default, where there is none to ask: an A100's, for the interpreter.
_DEFAULT_LIMIT = 163 * 1024


@dataclass(frozen=True)
class Tiles:
    """Queries and keys at a time: of the forward pass, and of the gradients."""

    forward: int
    gradients: int

    def shared_memory(self, channels: int, itemsize: int) -> int:
        """Bytes that no kernel takes more than from capability 8.0 on, for heads of D channels."""
        of_forward = self.forward * (self.forward + 4 * channels)
        of_gradients = 2 * self.gradients * (self.gradients + 4 * channels)
        return itemsize * max(of_forward, of_gradients)


# The first that fits. On an H200 gradients in blocks of 64, without the table's, took 0.7 to 0.9 of the time of blocks
# of 32, and in bf16 0.7 of that of a kernel with all queries at once, which had five products instead of seven.
_TILES = (Tiles(64, 64), Tiles(64, 32), Tiles(32, 32), Tiles(16, 16))
# Gradients in blocks of so many are for windows that these fill. For windows of 9x9 in fp32, Triton 3.6's code for an
# H200 left out a part of the table's sums; with blocks of 32, and of 64 in bf16, all were right.
_FILLED_BLOCK = 64


def block_warps(block: int) -> int:
    """Warps for blocks of so many queries and keys: one for 16, since more would compute the same.

    With two instead of four, gradients in blocks of 32, without the table's, took 0.5 to 0.6 of the time (H200).
    """
    return block // 16


def padded_pixels(window_size: int) -> int:
    """Pixels of a window as tiles have them."""
    return max(16, triton.next_power_of_2(window_size**2))


def padded_channels(channels: int) -> int:
    """Channels of a head as matrix products take them."""
    return max(16, triton.next_power_of_2(channels))


def choose_tiles(window_size: int, channels: int, dtype: torch.dtype, limit: int) -> Tiles | None:
    """The tiles for heads of so many channels and programs with `limit` bytes of shared memory; None if none fit."""
    pixels, channels = padded_pixels(window_size), padded_channels(channels)
    if pixels > MAX_PIXELS or channels * dtype.itemsize > MAX_HEAD_BYTES:
        return None
    filled = window_size**2 % _FILLED_BLOCK == 0
    candidates = (tiles for tiles in _TILES if filled or tiles.gradients < _FILLED_BLOCK)
    return next((tiles for tiles in candidates if tiles.shared_memory(channels, dtype.itemsize) <= limit), None)


def tiles_for(window_size: int, channels: int, dtype: torch.dtype, device: torch.device) -> Tiles | None:
    """The tiles on this device; None where PyTorch's attention has to do."""
    if device.type != "cuda":  # the interpreter
        return choose_tiles(window_size, channels, dtype, _DEFAULT_LIMIT)
    properties: Any = torch.cuda.get_device_properties(device)  # torch's types know fewer than there are
    if (properties.major, properties.minor) < MIN_CAPABILITY:
        return None
    return choose_tiles(window_size, channels, dtype, properties.shared_memory_per_block_optin)
