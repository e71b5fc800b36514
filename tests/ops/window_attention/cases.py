"""window_attention as its docstring says, pixel by pixel."""

import torch
from torch import Tensor


def by_definition(qkv: Tensor, bias_table: Tensor, window_size: int, shift: int) -> Tensor:
    """The attention in loops over pixels, differentiated by autograd; float64 for a reference."""
    batch, height, width, _ = qkv.shape
    heads, side = bias_table.shape[1], 2 * window_size - 1
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).unbind(3)  # (B, H, W, h, d) each

    def region(place: int, size: int) -> tuple[int, int, bool]:
        """(window, place in it, whether it came from the other end) of a pixel along one axis."""
        rolled = (place - shift) % size
        return rolled // window_size, rolled % window_size, place < shift

    rows, columns = [region(i, height) for i in range(height)], [region(j, width) for j in range(width)]
    images = []
    for b in range(batch):
        pixels = []
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                seen = [
                    (m, n, (row[1] - other[1] + window_size - 1) * side + column[1] - across[1] + window_size - 1)
                    for m, other in enumerate(rows)
                    for n, across in enumerate(columns)
                    if (other[0], other[2], across[0], across[2]) == (row[0], row[2], column[0], column[2])
                ]
                keys = torch.stack([k[b, m, n] for m, n, _ in seen])  # (seen, h, d)
                scores = (keys * q[b, i, j]).sum(-1) / keys.shape[-1] ** 0.5
                scores = scores + bias_table[[number for _, _, number in seen]]
                values = torch.stack([v[b, m, n] for m, n, _ in seen])
                pixels.append((scores.softmax(0)[..., None] * values).sum(0).flatten())
        images.append(torch.stack(pixels).view(height, width, -1))
    return torch.stack(images)


def random_attention(
    generator: torch.Generator, *, batch: int = 1, height: int = 6, width: int = 9, window: int = 3, heads: int = 2,
    channels: int = 3,
) -> dict[str, Tensor]:  # fmt: skip
    """Tensor arguments of window_attention in float64."""
    return {
        "qkv": torch.randn(batch, height, width, 3 * heads * channels, generator=generator, dtype=torch.float64),
        "bias_table": torch.randn((2 * window - 1) ** 2, heads, generator=generator, dtype=torch.float64),
    }
