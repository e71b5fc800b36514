"""window_attention by PyTorch's own scaled_dot_product_attention: every device, every floating type.

Shapes: B images, H x W pixels, w window size, h heads of d channels, C = h d; n windows of all images.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# Scores of pixels that must not see each other are lower by this than they would be, as published.
MASKED = 100.0


def window_attention_reference(qkv: Tensor, bias_table: Tensor, window_size: int, shift: int) -> Tensor:
    """See `window_attention`."""
    batch, height, width, _ = qkv.shape
    heads = bias_table.shape[1]
    channels = qkv.shape[3] // (3 * heads)
    if shift:
        qkv = qkv.roll((-shift, -shift), (1, 2))
    grid = (batch, height // window_size, window_size, width // window_size, window_size)
    windows = qkv.view(*grid, 3, heads, channels).permute(5, 0, 1, 3, 6, 2, 4, 7)  # (3, B, H/w, W/w, h, w, w, d)
    if shift:
        # Two more channels tell the regions apart, and no mask, which every window would need its own of, is made.
        # A common summand of a query's scores, such as that of equal regions, changes nothing.
        sides = region_sides(height, width, window_size, shift, qkv.device) * (0.5 * MASKED * channels**0.5) ** 0.5
        sides = torch.stack((sides, sides, torch.zeros_like(sides))).to(qkv.dtype)
        # In five dimensions: OpenVINO expands more of them wrongly.
        sides = sides.reshape(3, 1, -1, 1, 2 * window_size**2)
        sides = sides.expand(3, batch, sides.shape[2], heads, sides.shape[4]).reshape(*windows.shape[:-1], 2)
        windows = torch.cat((windows, sides), dim=-1)
    q, k, v = windows.reshape(3, -1, heads, window_size**2, windows.shape[-1])  # (n, h, w w, d or d + 2) each
    bias = position_bias(bias_table.to(q.dtype), window_size)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None], scale=channels**-0.5)
    y = y[..., :channels].view(*grid[:2], grid[3], heads, window_size, window_size, channels)
    y = y.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, height, width, heads * channels)
    return y.roll((shift, shift), (1, 2)) if shift else y


def position_bias(bias_table: Tensor, window_size: int) -> Tensor:
    """(h, w w, w w): the bias of every pair of a window's query and key, out of the ((2w - 1)^2, h) table.

    As a copy of overlapping views, whose gradient needs no atomic additions: it is the same in every run.
    """
    side = 2 * window_size - 1
    table = bias_table.t().reshape(-1, side, side)
    # [h, i, j, k, l] is the table at (i + k, j + l); reversed keys make that the differences.
    sums = table.unfold(1, window_size, 1).unfold(2, window_size, 1)
    return sums.flip(3, 4).reshape(-1, window_size**2, window_size**2)


def region_sides(height: int, width: int, window_size: int, shift: int, device: torch.device) -> Tensor:
    """(H/w, W/w, w, w, 2), float32: on which side of the rolled image's seams a window's pixels lie.

    1 or -1 for the two sides of the seam between rows and of that between columns; 0 where no seam crosses the window.
    """

    def sides(size: int) -> Tensor:
        place = torch.arange(size, device=device)
        side = torch.where(place < size - shift, 1.0, -1.0)
        return torch.where(place < size - window_size, 0.0, side).view(-1, window_size)

    rows, columns = sides(height)[:, None, :, None], sides(width)[None, :, None, :]
    return torch.stack(torch.broadcast_tensors(rows, columns), dim=-1)
