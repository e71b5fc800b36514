"""Parameters per channel, to and from the order in which the kernels read them: blocks of 16 channels.

Shapes: K groups (directions) of D channels, G = ceil(D / 16) blocks, n values per channel.
"""

import torch.nn.functional as F
from torch import Tensor

from mambair.ops.cpu.simd import LANES


def block_count(channels: int) -> int:
    """How many blocks of 16 hold so many channels."""
    return -(-channels // LANES)


def to_blocks(parameter: Tensor) -> Tensor:
    """(K, D, n) or (K, D) -> (K, G, n, 16) or (K, G, 16), contiguous, with zeros for missing channels."""
    if parameter.dim() == 2:
        return to_blocks(parameter.unsqueeze(2)).squeeze(2)
    blocks = block_count(parameter.shape[1])
    padded = F.pad(parameter, (0, 0, 0, blocks * LANES - parameter.shape[1]))
    return padded.unflatten(1, (blocks, LANES)).transpose(2, 3).contiguous()


def from_blocks(blocks: Tensor, channels: int) -> Tensor:
    """The inverse of `to_blocks`."""
    if blocks.dim() == 3:
        return blocks.flatten(1, 2)[:, :channels].contiguous()
    return blocks.transpose(2, 3).flatten(1, 2)[:, :channels].contiguous()
