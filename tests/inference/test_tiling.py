"""Tiles: the published rule equals its golden maps, blended tiles leave no seam."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mambair.inference.tiling import blended_starts, default_overlap, published_tiles, restore_tiled

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "golden" / "tiling.npz"


def golden_cases() -> dict:
    with np.load(GOLDEN) as archive:
        return json.loads(str(archive["meta"]))["cases"]


def nearest(scale: int):
    return lambda lq: F.interpolate(lq, scale_factor=scale, mode="nearest")


class Labeller:
    """Stands for a network: paints each tile with its number and notes the tile's size."""

    def __init__(self, scale: int) -> None:
        self.scale = scale
        self.sizes = []

    def __call__(self, lq: torch.Tensor) -> torch.Tensor:
        label = float(len(self.sizes))
        self.sizes.append(list(lq.shape[-2:]))
        return torch.full((*lq.shape[:2], lq.shape[2] * self.scale, lq.shape[3] * self.scale), label)


@pytest.mark.parametrize("case", sorted(golden_cases()))
def test_published_rule_equals_the_golden_maps(case: str) -> None:
    size, scale = case.split("_s")
    height, width = map(int, size.split("x"))
    labeller = Labeller(int(scale))
    labels = restore_tiled(labeller, torch.rand(1, 1, height, width), int(scale), tile="published")
    assert labeller.sizes == golden_cases()[case]["tiles"]
    with np.load(GOLDEN) as archive:
        np.testing.assert_array_equal(labels[0, 0].numpy(), archive[f"tilemap_{case}"])


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (200, 399), (401, 1), (1003, 205)])
def test_published_tiles_keep_every_pixel_once(size: tuple[int, int]) -> None:
    covered = np.zeros((size[0] + 10, size[1] + 10), dtype=int)
    for rows, columns in published_tiles(*size):
        assert rows.start <= rows.keep_start < rows.keep_stop <= rows.stop
        covered[rows.keep_start : rows.keep_stop, columns.keep_start : columns.keep_stop] += 1
    assert (covered[: size[0], : size[1]] == 1).all() and covered.max() == 1


@pytest.mark.parametrize("tile", ["published", None, 1, 8, 33, 64, 1000])
@pytest.mark.parametrize(("size", "scale"), [((1, 1), 2), ((7, 13), 3), ((203, 230), 1), ((65, 64), 2)])
def test_tiling_a_pointwise_function_changes_nothing(tile, size: tuple[int, int], scale: int) -> None:
    lq = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    restored = restore_tiled(nearest(scale), lq, scale, tile=tile, tile_batch=64)
    torch.testing.assert_close(restored, nearest(scale)(lq), rtol=0, atol=1e-6)


@pytest.mark.parametrize("overlap", [0, 1, 5, 31])
@pytest.mark.parametrize("length", [33, 40, 63, 64, 65, 97, 200])
def test_a_constant_image_stays_constant(length: int, overlap: int) -> None:
    lq = torch.full((1, 1, length, 32), 0.7)
    restored = restore_tiled(nearest(2), lq, 2, tile=32, overlap=overlap)
    assert (restored - 0.7).abs().max() < 1e-6


def test_disagreeing_tiles_blend_without_a_step() -> None:
    # The tiles of a labeller differ by one; a seam would show as a jump of one between neighbouring pixels.
    restored = restore_tiled(Labeller(1), torch.rand(1, 1, 16, 88), 1, tile=40, overlap=16)
    steps = restored.diff(dim=-1)
    assert restored.min() == 0 and restored.max() == 2
    assert steps.abs().max() <= 1 / 16 + 1e-6 and steps.min() >= 0


@pytest.mark.parametrize(("length", "tile", "overlap"), [(100, 40, 16), (41, 40, 39), (1000, 64, 8), (64, 64, 8)])
def test_starts_cover_the_axis_with_the_overlap_asked_for(length: int, tile: int, overlap: int) -> None:
    starts = blended_starts(length, tile, overlap)
    assert starts[0] == 0 and starts[-1] + tile == length
    gaps = [second - first for first, second in itertools.pairwise(starts)]
    assert all(1 <= gap <= tile - overlap for gap in gaps)


@pytest.mark.parametrize("tile_batch", [1, 2, 5])
def test_batched_tiles_give_the_same_result(tile_batch: int) -> None:
    lq = torch.rand(2, 3, 50, 70, generator=torch.Generator().manual_seed(1))
    convolution = torch.nn.Conv2d(3, 3, 3, padding=1)
    with torch.inference_mode():
        single = restore_tiled(convolution, lq, 1, tile=24)
        batched = restore_tiled(convolution, lq, 1, tile=24, tile_batch=tile_batch)
    torch.testing.assert_close(single, batched, rtol=0, atol=1e-5)


def test_bad_sizes_are_refused() -> None:
    lq = torch.rand(1, 3, 20, 20)
    for keywords in ({"tile": 0}, {"tile": "auto"}, {"tile": 8, "overlap": 8}, {"tile": 8, "tile_batch": 0}):
        with pytest.raises(ValueError, match="must be"):
            restore_tiled(nearest(1), lq, 1, **keywords)
    assert [default_overlap(tile) for tile in (1, 32, 64, 128, 256, 1024)] == [0, 8, 16, 16, 32, 64]
