"""What augmentations do to pairs whose every pixel says where it comes from."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mambair.data.augmentations import ChannelShuffle, CutBlur, CutMix, ResizeMix, build_augmentations
from mambair.errors import UserError
from mambair.registry import AUGMENTATIONS

SCALE = 2


def known_pairs(count: int = 4, side: int = 8, scale: int = SCALE) -> tuple[Tensor, Tensor]:
    """Each pair has a grey level of its own, the same in LQ and GT, below which a ramp tells rows and columns."""
    lq = torch.stack([torch.full((3, side, side), 0.1 + 0.2 * index) for index in range(count)])
    lq = lq + torch.arange(side * side).reshape(side, side) * 1e-4
    return lq, F.interpolate(lq, scale_factor=scale, mode="nearest")


def from_partner(changed: Tensor, original: Tensor) -> Tensor:
    """Where (B, C, H, W) differs from what it was, in any channel: (B, H, W)."""
    return (changed != original).any(dim=1)


def box_of(mask: Tensor) -> tuple[slice, slice]:
    rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def draws(augmentation: Any, pairs: tuple[Tensor, Tensor], count: int = 30) -> list[tuple[Tensor, Tensor]]:
    kept = [tensor.clone() for tensor in pairs]
    results = [augmentation(*pairs, np.random.default_rng(seed)) for seed in range(count)]
    assert all(torch.equal(tensor, before) for tensor, before in zip(pairs, kept, strict=True)), "written into"
    assert all(lq.shape == pairs[0].shape and gt.shape == pairs[1].shape for lq, gt in results)
    return results


@pytest.mark.parametrize("name", ["CutMix", "ResizeMix", "CutBlur", "ChannelShuffle", "MixUp"])
def test_probability_and_repetition(name: str) -> None:
    pairs = known_pairs()
    if name in ("CutBlur", "ChannelShuffle"):
        pairs = (torch.rand_like(pairs[0]), torch.rand_like(pairs[1]))
    keywords = {"use_identity": False} if name == "MixUp" else {}
    never = AUGMENTATIONS.build({"type": name, "probability": 0.0, **keywords})
    assert all(torch.equal(lq, pairs[0]) and torch.equal(gt, pairs[1]) for lq, gt in draws(never, pairs))
    half = AUGMENTATIONS.build({"type": name, "probability": 0.5, **keywords})
    changed = [not torch.equal(lq, pairs[0]) for lq, _ in draws(half, pairs, 200)]
    assert 40 < sum(changed) < 120
    first, second = (half(*pairs, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    with pytest.raises(UserError, match=r"probability: 1\.5"):
        AUGMENTATIONS.build({"type": name, "probability": 1.5})


def test_cutmix_takes_the_same_rectangle_of_the_same_partner() -> None:
    pairs = known_pairs()
    areas = []
    for lq, gt in draws(CutMix(probability=1.0), pairs):
        mask = from_partner(lq, pairs[0])
        assert torch.equal(mask.repeat_interleave(SCALE, 1).repeat_interleave(SCALE, 2), from_partner(gt, pairs[1]))
        for index in mask.flatten(1).any(dim=1).nonzero().flatten().tolist():
            rows, columns = box_of(mask[index])
            assert mask[index, rows, columns].all()  # a whole rectangle
            partners = [p for p in range(4) if torch.equal(lq[index][:, rows, columns], pairs[0][p][:, rows, columns])]
            assert len(partners) == 1 and partners[0] != index
            large = (slice(rows.start * 2, rows.stop * 2), slice(columns.start * 2, columns.stop * 2))
            assert torch.equal(gt[index][:, large[0], large[1]], pairs[1][partners[0]][:, large[0], large[1]])
            areas.append(mask[index].float().mean().item())
    assert min(areas) < 0.3 and max(areas) > 0.6


def test_resizemix_puts_a_whole_smaller_partner_in() -> None:
    pairs = known_pairs(side=16)
    for lq, gt in draws(ResizeMix(probability=1.0, smallest=0.25, largest=0.5), pairs):
        mask = from_partner(lq, pairs[0])
        for index in mask.flatten(1).any(dim=1).nonzero().flatten().tolist():
            rows, columns = box_of(mask[index])
            height, width = rows.stop - rows.start, columns.stop - columns.start
            assert 4 <= height <= 8 and 4 <= width <= 8
            # Levels of pairs are 0.2 apart: the pasted part's mean names the partner, which may be the pair itself.
            part = lq[index][:, rows, columns]
            partner = round((part.mean().item() - 0.1) / 0.2)
            assert part.mean().item() == pytest.approx(pairs[0][partner].mean().item(), abs=2e-3)
            large = gt[index][:, rows.start * 2 : rows.stop * 2, columns.start * 2 : columns.stop * 2]
            assert large.mean().item() == pytest.approx(pairs[1][partner].mean().item(), abs=2e-3)
            outside = ~from_partner(gt, pairs[1])[index]
            assert torch.equal(gt[index][:, outside], pairs[1][index][:, outside])


def test_cutblur_exchanges_lq_and_gt_at_scale_1() -> None:
    lq, gt = torch.zeros(2, 3, 10, 10), torch.ones(2, 3, 10, 10)
    inside = outside = 0
    for mixed, target in draws(CutBlur(probability=1.0, alpha=0.7), (lq, gt)):
        assert torch.equal(target, gt)
        clean = mixed[0, 0] == 1
        assert torch.equal(mixed, clean.float().expand_as(mixed))
        is_inside = bool(clean[box_of(clean)].all())
        hole = clean if is_inside else ~clean
        assert hole[box_of(hole)].all() and 1 <= hole.sum() <= 49
        inside, outside = inside + is_inside, outside + (not is_inside)
    assert inside > 5 and outside > 5


def test_cutblur_reduces_gt_at_larger_scales() -> None:
    lq, gt = torch.zeros(1, 3, 8, 8), torch.rand(1, 3, 16, 16)
    clean = F.interpolate(gt, (8, 8), mode="bicubic", antialias=True).clamp(0, 1)
    for mixed, _ in draws(CutBlur(probability=1.0), (lq, gt)):
        assert bool(((mixed == 0) | (mixed == clean)).all())
        assert 0 < (mixed == clean).float().mean() < 1
    single, target = CutBlur(probability=1.0)(lq[0], gt[0], np.random.default_rng(0))
    assert single.shape == (3, 8, 8) and torch.equal(target, gt[0])


def test_channels_are_shuffled_alike() -> None:
    lq = torch.arange(3.0).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    gt = torch.arange(3.0).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    orders = set()
    for changed, target in draws(ChannelShuffle(probability=1.0), (lq, gt), 60):
        order = changed[0, :, 0, 0].tolist()
        assert changed.mean(dim=(0, 2, 3)).tolist() == target.mean(dim=(0, 2, 3)).tolist() == order
        orders.add(tuple(order))
    assert len(orders) == 6
    gray = torch.rand(1, 5, 5)
    assert torch.equal(ChannelShuffle(probability=1.0)(gray, gray, np.random.default_rng(0))[0], gray)


def where(key: str) -> str:
    return f"file: {key}"


def test_lists_of_augmentations() -> None:
    blocks = [{"type": "ChannelShuffle", "probability": 1.0}, {"type": "CutMix", "probability": 1.0}]
    chain = build_augmentations(blocks, where, "train.augmentations", per_batch=True)
    assert chain is not None
    pairs = known_pairs()
    shuffled = build_augmentations(blocks[:1], where, "train.augmentations", per_batch=True)
    assert not torch.equal(chain(*pairs, np.random.default_rng(0))[0], pairs[0])
    first = [each(*pairs, np.random.default_rng(5))[0][0, :, 0, 0] for each in (chain, shuffled)]
    assert sorted(first[1].tolist()) == sorted(pairs[0][0, :, 0, 0].tolist())
    assert build_augmentations([], where, "train.augmentations", per_batch=True) is None


def test_what_does_not_fit_is_refused(plugins_forgotten: None) -> None:
    with pytest.raises(UserError, match=r"datasets\.train\.augmentations\.0: CutMix is not for single pairs; write it"):
        build_augmentations([{"type": "CutMix"}], where, "datasets.train.augmentations", per_batch=False)
    with pytest.raises(UserError, match=r"augmentations\.0: unknown augmentation 'Cutmix'; did you mean 'CutMix'"):
        build_augmentations([{"type": "Cutmix"}], where, "train.augmentations", per_batch=True)

    @AUGMENTATIONS.register()
    class Cropping:
        def __call__(self, lq: Tensor, gt: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
            return lq[..., 1:], gt[..., 2:]

    chain = build_augmentations([{"type": "Cropping"}], where, "x", per_batch=True)
    assert chain is not None
    with pytest.raises(UserError, match=r"Cropping made .* an augmentation keeps the shapes"):
        chain(*known_pairs(), np.random.default_rng(0))
