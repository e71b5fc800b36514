"""How far tiled restoration is from whole-image restoration: per tile size, over photos.

    python scripts/tile_error.py --weights lightSR_x2.pth photo.png other.png --tiles 64 128 --overlaps 8 16 32

Errors are in grey levels (of 255) between results clipped to [0, 1] but not rounded. "border" is the mean over result
pixels within 4 input pixels of a place where tiles meet, "rest" the mean over all other pixels.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from mambair.imaging.photo import read_photo
from mambair.imaging.tensors import image_to_tensor
from mambair.inference.restorer import Restorer, load_model
from mambair.inference.tiling import blended_starts, published_tiles

NEAR = 4
GREY_LEVELS = 255


def border_mask(length: int, tile: int | str, overlap: int | None) -> np.ndarray:
    """(length,) bool: input pixels within NEAR of the middle of an overlap (of a cut, for the published rule)."""
    if tile == "published":
        meetings = [column.keep_start for _, column in published_tiles(1, length)][1:]
    else:
        starts = blended_starts(length, tile, overlap)
        meetings = [(first + tile + second) / 2 for first, second in itertools.pairwise(starts)]
    positions = np.arange(length) + 0.5
    return np.any([abs(positions - meeting) <= NEAR for meeting in meetings] or [np.zeros(length, bool)], axis=0)


def measure(whole: torch.Tensor, tiled: torch.Tensor, border: np.ndarray, scale: int) -> tuple[float, float, float]:
    """(mean at borders, mean elsewhere, largest) error in grey levels."""
    error = (whole - tiled).abs().mul(GREY_LEVELS)[0].mean(dim=0).numpy()  # (s*H, s*W)
    near = border.repeat(scale, axis=0).repeat(scale, axis=1)
    at_border = error[near].mean() if near.any() else 0.0
    return float(at_border), float(error[~near].mean()), float(error.max())


def tiled_model(model: Restorer, tile: int | str | None, overlap: int | None) -> Restorer:
    """The same network with another way of tiling."""
    return Restorer(model.network, device=model.device, tile=tile, overlap=overlap)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--tiles", nargs="+", type=int, default=[64, 96, 128, 192])
    parser.add_argument("--overlaps", nargs="+", type=int, default=[8, 16, 32])
    arguments = parser.parse_args(argv)
    model = load_model(arguments.weights)
    photos = [image_to_tensor(read_photo(path).pixels)[None] for path in arguments.photos]
    wholes = [tiled_model(model, None, None).restore(photo) for photo in photos]
    table = Table("tile", "overlap", "border", "rest", "largest")
    cases = [(tile, overlap) for tile in arguments.tiles for overlap in arguments.overlaps if 2 * overlap < tile]
    for tile, overlap in [*cases, ("published", None)]:
        rows = []
        for photo, whole in zip(photos, wholes, strict=True):
            height, width = photo.shape[2:]
            border = border_mask(height, tile, overlap)[:, None] | border_mask(width, tile, overlap)[None]
            rows.append(measure(whole, tiled_model(model, tile, overlap).restore(photo), border, model.scale))
        at_border, rest, _ = np.mean(rows, axis=0)
        largest = max(row[2] for row in rows)
        table.add_row(
            str(tile),
            "tile / 10" if overlap is None else str(overlap),
            *(f"{value:.3f}" for value in (at_border, rest, largest)),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
