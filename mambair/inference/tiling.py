"""Restoring an image in tiles: the rule behind the published numbers, and blended tiles without seams.

Shapes: B images, C channels, H x W pixels of the low-quality input, s the scale of the network.
All spans and tile sizes are in input pixels.
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F

Restore = Callable[[torch.Tensor], torch.Tensor]
TileRule = Literal["published"] | int | None

# The published rule: one tile more for every 200 pixels, and a tenth of a tile as overlap.
PUBLISHED_STEP = 200
PUBLISHED_OVERLAP = 10

# Without a stated overlap: an eighth of the tile, but at least 16 pixels, below which the error where tiles meet rose
# sevenfold on photos (0.23 against 0.03 grey levels, tiles of 64), and at most 64 or a quarter of the tile.
OVERLAP_FRACTION = 8
MIN_DEFAULT_OVERLAP, MAX_DEFAULT_OVERLAP = 16, 64


class Span(NamedTuple):
    """One axis of a tile: the network reads [start, stop), the result keeps [keep_start, keep_stop)."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


class Tile(NamedTuple):
    """A rectangle of the padded input."""

    rows: Span
    columns: Span


def published_spans(length: int) -> list[Span]:
    """Cut one axis of `length` >= 1 pixels by the rule of the published test code.

    The axis counts as padded to a multiple of the number of tiles: the last span may end behind `length`.
    """
    count = length // PUBLISHED_STEP + 1
    size = math.ceil(length / count)
    overlap = size // PUBLISHED_OVERLAP
    return [
        Span(
            start=index * size - (overlap if index > 0 else 0),
            stop=(index + 1) * size + (overlap if index < count - 1 else 0),
            keep_start=index * size,
            keep_stop=(index + 1) * size,
        )
        for index in range(count)
    ]


def published_tiles(height: int, width: int) -> list[Tile]:
    """Tiles of the published test code, row by row, for an input of height x width pixels (each >= 1).

    h//200+1 by w//200+1 tiles of equal size on the image padded by reflection to a multiple of them; each is
    read with a tenth of its size around it (inside the padded image only) and its centre part is kept. The
    numbers in the paper's tables come from this rule.
    """
    return [Tile(rows, columns) for rows in published_spans(height) for columns in published_spans(width)]


def default_overlap(tile: int) -> int:
    """Overlap in pixels between neighbouring tiles of `tile` pixels when the caller states none."""
    return min(max(tile // OVERLAP_FRACTION, MIN_DEFAULT_OVERLAP), MAX_DEFAULT_OVERLAP, tile // 4)


def blended_starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of the fewest tiles that cover `length` pixels with at least `overlap` shared by neighbours.

    The tiles are spread evenly, so all have the full size `tile` (or `length`, if that is smaller).
    """
    if length <= tile:
        return [0]
    steps = math.ceil((length - tile) / (tile - overlap))
    return [round(index * (length - tile) / steps) for index in range(steps + 1)]


def blend_weights(length: int, tile: int, overlap: int, scale: int) -> list[torch.Tensor]:
    """Weight of each tile's output pixels along one axis; over the tiles of a pixel they sum to one.

    A weight falls linearly to zero over `overlap` pixels towards each edge inside the image: there a tile
    lacks its surroundings most. Returns one float32 tensor of min(tile, length)*scale values per tile.
    """
    starts = blended_starts(length, tile, overlap)
    size = min(tile, length) * scale
    ramp = max(overlap * scale, 1)
    position = torch.arange(size, dtype=torch.float64) + 0.5
    weights = []
    total = torch.zeros(length * scale, dtype=torch.float64)
    for start in starts:
        weight = torch.ones(size, dtype=torch.float64)
        if start > 0:
            weight = torch.minimum(weight, position / ramp)
        if start * scale + size < length * scale:
            weight = torch.minimum(weight, (size - position) / ramp)
        total[start * scale : start * scale + size] += weight
        weights.append(weight)
    return [
        (weight / total[start * scale : start * scale + size]).float()
        for start, weight in zip(starts, weights, strict=True)
    ]


def restore_published(fn: Restore, lq: torch.Tensor, scale: int) -> torch.Tensor:
    """Restore (B, C, H, W) by `published_tiles`; the result is (B, C, s*H, s*W)."""
    batch, _, height, width = lq.shape
    tiles = published_tiles(height, width)
    padded_height, padded_width = tiles[-1].rows.keep_stop, tiles[-1].columns.keep_stop
    padded = F.pad(lq, (0, padded_width - width, 0, padded_height - height), mode="reflect")
    output = lq.new_empty(0)
    for rows, columns in tiles:
        restored = fn(padded[..., rows.start : rows.stop, columns.start : columns.stop])
        if not output.numel():
            output = lq.new_empty(batch, restored.shape[1], padded_height * scale, padded_width * scale)
        top, left = (rows.keep_start - rows.start) * scale, (columns.keep_start - columns.start) * scale
        kept_height = (rows.keep_stop - rows.keep_start) * scale
        kept_width = (columns.keep_stop - columns.keep_start) * scale
        output[
            ...,
            rows.keep_start * scale : rows.keep_stop * scale,
            columns.keep_start * scale : columns.keep_stop * scale,
        ] = restored[..., top : top + kept_height, left : left + kept_width]
    return output[..., : height * scale, : width * scale]


def restore_blended(
    fn: Restore, lq: torch.Tensor, scale: int, tile: int, overlap: int, tile_batch: int = 1
) -> torch.Tensor:
    """Restore (B, C, H, W) in overlapping tiles that are blended; the result is (B, C, s*H, s*W)."""
    batch, _, height, width = lq.shape
    tile_height, tile_width = min(tile, height), min(tile, width)
    axes = [
        list(zip(blended_starts(length, tile, overlap), blend_weights(length, tile, overlap, scale), strict=True))
        for length in (height, width)
    ]
    places = [(row, column) for row in axes[0] for column in axes[1]]
    output = lq.new_empty(0)
    for group in _groups(places, tile_batch):
        crops = [lq[..., top : top + tile_height, left : left + tile_width] for (top, _), (left, _) in group]
        restored = fn(torch.cat(crops)).to(lq.device, torch.float32)  # (len(group)*B, C, s*h, s*w)
        if not output.numel():
            output = torch.zeros(
                batch, restored.shape[1], height * scale, width * scale, dtype=torch.float32, device=lq.device
            )
        for ((top, rows), (left, columns)), part in zip(group, restored.split(batch), strict=True):
            weight = rows.to(lq.device)[:, None] * columns.to(lq.device)[None, :]  # (s*h, s*w)
            region = output[..., top * scale : (top + tile_height) * scale, left * scale : (left + tile_width) * scale]
            region.addcmul_(part, weight)
    return output


def _groups(places: list, size: int) -> Iterator[list]:
    for first in range(0, len(places), size):
        yield places[first : first + size]


def restore_tiled(
    fn: Restore,
    lq: torch.Tensor,
    scale: int,
    tile: TileRule = "published",
    overlap: int | None = None,
    tile_batch: int = 1,
) -> torch.Tensor:
    """Restore an image batch in tiles.

    Args:
        fn: restores (B, C, h, w) in [0, 1] to (B, C', s*h, s*w), for any h, w >= 1; it may return its result on
            another device, which is how an image larger than the GPU's memory is restored.
        lq: (B, C, H, W) float, H and W >= 1.
        scale: s, the factor between the sides of the result and the input.
        tile: None restores the whole image at once; "published" follows the published test code (see
            `published_tiles`); a number is the side of square tiles that overlap and are blended, in input pixels.
        overlap: pixels shared by neighbouring tiles, below `tile`; default `default_overlap(tile)`. Only for numbers.
        tile_batch: tiles restored in one call of `fn`. Only for numbers.

    Returns:
        (B, C', s*H, s*W) on the device of `lq`. Tiles of a number blend with weights that sum to one.

    Raises:
        ValueError: a tile or batch size below 1, or an overlap outside 0 ... tile-1.
    """
    if tile is None:
        return fn(lq).to(lq.device)
    if tile == "published":
        return restore_published(fn, lq, scale)
    if not isinstance(tile, int) or tile < 1:
        raise ValueError(f"tile: {tile!r} must be None, 'published' or a number of pixels >= 1")
    if tile_batch < 1:
        raise ValueError(f"tile_batch: {tile_batch} must be at least 1")
    overlap = default_overlap(tile) if overlap is None else overlap
    if not 0 <= overlap < tile:
        raise ValueError(f"overlap: {overlap} must be from 0 to below the tile size {tile}")
    return restore_blended(fn, lq, scale, tile, overlap, tile_batch)
