"""Colours and alpha around the edges of cut-outs and masks.

Shapes: B images, C channels, H x W pixels of the input, s the network's scale.
"""

import torch
from scipy import ndimage
from torch.nn.functional import max_pool2d

# Half the side, in input pixels, of the neighbourhood whose range a restored pixel may not leave.
_RADIUS = 2
# Alpha from which on colours are firm: those of fainter pixels have lost most of their levels where files hold them
# multiplied with alpha.
_FIRM = 1 / 16


def bled(colors: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) with the colours of wholly transparent pixels replaced by those of the nearest visible ones.

    A network looks at all pixels: the black that most files have under alpha 0, (B, 1, H, W), would darken the edges.
    """
    hidden = alpha[:, 0] <= 0  # (B, H, W)
    if not hidden.any():
        return colors
    result = colors.clone()
    for index in range(len(colors)):
        sources = alpha[index, 0] >= _FIRM
        if not sources.any():
            continue
        nearest = ndimage.distance_transform_edt((~sources).cpu().numpy(), return_distances=False, return_indices=True)
        rows, columns = torch.from_numpy(nearest).long().to(colors.device)
        result[index] = torch.where(hidden[index], colors[index][:, rows, columns], colors[index])
    return result


def within_neighbours(restored: torch.Tensor, planes: torch.Tensor) -> torch.Tensor:
    """(B, C, s*H, s*W), clipped to the range of its source (B, C, H, W) within two pixels: flat areas stay flat."""
    scale = restored.shape[2] // planes.shape[2]
    planes = planes.to(restored.device)
    high, low = (sign * max_pool2d(sign * planes, 2 * _RADIUS + 1, stride=1, padding=_RADIUS) for sign in (1, -1))
    enlarged = (each.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3) for each in (low, high))
    return restored.clamp(*enlarged)
