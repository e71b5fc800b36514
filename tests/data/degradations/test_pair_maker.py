import numpy as np
import pytest
import torch

from mambair.data.degradations.blur_kernels import KernelDistribution
from mambair.data.degradations.pair_maker import PairMaker, crop_pair
from mambair.data.degradations.pair_queue import PairQueue
from mambair.data.degradations.second_order import RoundSettings

CPU = torch.device("cpu")
NOISELESS = RoundSettings(blur_odds=0, resize=(1, 1), gaussian_odds=1, noise=(0, 0), jpeg=(100, 100))


def numbered(start: int, count: int) -> torch.Tensor:
    """Images whose pixels all are their number / 255."""
    return (torch.arange(start, start + count).view(-1, 1, 1, 1) / 255).expand(-1, 3, 4, 4)


def test_queue_passes_batches_through_until_full_and_then_mixes():
    queue, rng = PairQueue(6), np.random.default_rng(0)
    for start in (0, 2, 4):
        gt, lq = queue.exchange(numbered(start, 2), numbered(start, 2), rng)
        torch.testing.assert_close(gt, numbered(start, 2))
    assert len(queue) == 6
    out, held = [], []
    for start in range(6, 46, 2):
        gt, lq = queue.exchange(numbered(start, 2), numbered(start, 2), rng)
        torch.testing.assert_close(gt, lq)  # pairs stay together
        out += (gt[:, 0, 0, 0] * 255).round().int().tolist()
    held = (queue.state_dict()["gt"][:, 0, 0, 0]).tolist()
    assert sorted(out + held) == list(range(46))  # nothing lost, nothing twice
    assert out != sorted(out)


def test_batch_larger_than_the_queue():
    queue, rng = PairQueue(2), np.random.default_rng(0)
    queue.exchange(numbered(0, 2), numbered(0, 2), rng)
    gt, _ = queue.exchange(numbered(2, 5), numbered(2, 5), rng)
    assert len(gt) == 5 and len(queue) == 2


def test_queue_state_survives_a_checkpoint():
    first = PairQueue(4)
    first.exchange(numbered(0, 4), numbered(0, 4), np.random.default_rng(0))
    second = PairQueue(4)
    second.load_state_dict(first.state_dict(), CPU)
    outputs = [q.exchange(numbered(9, 2), numbered(9, 2), np.random.default_rng(1)) for q in (first, second)]
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))
    second.load_state_dict({}, CPU)
    assert len(second) == 0


def test_crops_stay_aligned():
    lq = torch.arange(20 * 24.0).view(1, 1, 20, 24)
    gt = lq.repeat_interleave(4, 2).repeat_interleave(4, 3)
    offsets = set()
    for seed in range(50):
        gt_crop, lq_crop = crop_pair(gt, lq, 64, 4, np.random.default_rng(seed))
        assert gt_crop.shape == (1, 1, 64, 64) and lq_crop.shape == (1, 1, 16, 16)
        torch.testing.assert_close(gt_crop[..., ::4, ::4], lq_crop)
        offsets.add(lq_crop[0, 0, 0, 0].item())
    assert len(offsets) > 10


def batch_of(count: int, side: int, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    draw = KernelDistribution().draw
    kernels = {
        key: torch.from_numpy(np.stack([draw(rng) for _ in range(count)]))
        for key in ("kernel1", "kernel2", "sinc_kernel")
    }
    gt = torch.from_numpy(rng.integers(256, size=(count, 3, side, side))).float() / 255
    return {"gt": gt, **kernels}


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_pairs_and_resume(scale):
    maker = PairMaker(scale, gt_size=48, queue_size=4)
    for seed in range(2):
        gt, lq = maker.make(batch_of(2, 64, seed), np.random.default_rng(seed))
        assert gt.shape == (2, 3, 48, 48) and lq.shape == (2, 3, 48 // scale, 48 // scale)
    resumed = PairMaker(scale, gt_size=48, queue_size=4)
    resumed.load_state_dict(maker.state_dict(), CPU)
    maker_pairs, resumed_pairs = (
        [m.make(batch_of(2, 64, seed), np.random.default_rng(seed)) for seed in (2, 3)] for m in (maker, resumed)
    )
    for (gt, lq), (gt_resumed, lq_resumed) in zip(maker_pairs, resumed_pairs, strict=True):
        assert torch.equal(lq, lq_resumed)
        assert torch.equal(gt, gt_resumed)


def test_the_source_may_be_left_unsharpened():
    """The truth is never sharpened here; without lq_usm the partner of an image is made of what the truth shows."""
    batch = batch_of(1, 64, 0)
    batch["gt"] = (batch["gt"] > 0.5).float().clamp(0.2, 0.8)
    pairs = [
        PairMaker(1, 48, 4, NOISELESS, NOISELESS, sharpened=sharpened).make(dict(batch), np.random.default_rng(0))
        for sharpened in (True, False)
    ]
    assert torch.equal(pairs[0][0], pairs[1][0])
    assert pairs[1][1].std() < 0.97 * pairs[0][1].std()
