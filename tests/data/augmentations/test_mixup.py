import numpy as np
import torch

from mambair.data.augmentations import MixUp


def test_lq_and_gt_are_blended_alike_and_repeatably() -> None:
    gt = torch.rand(4, 3, 5, 5)
    lq = gt + 1
    mixed_lq, mixed_gt = MixUp(use_identity=False)(lq, gt, np.random.default_rng(3))
    torch.testing.assert_close(mixed_lq - mixed_gt, torch.ones_like(gt))
    assert not torch.equal(mixed_gt, gt)
    again_lq, again_gt = MixUp(use_identity=False)(lq, gt, np.random.default_rng(3))
    assert torch.equal(mixed_lq, again_lq)
    assert torch.equal(mixed_gt, again_gt)


def test_weight_follows_the_beta_distribution() -> None:
    mixup = MixUp(beta=1.2, use_identity=False)
    weights = []
    for seed in range(4000):
        batch = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
        mixed, _ = mixup(batch, batch, np.random.default_rng(seed))
        weights.append(mixed[1].item())
    # The partner is the other image half of the time; then the value is the weight, otherwise 1.
    drawn = [weight for weight in weights if weight < 1]
    assert abs(len(drawn) / len(weights) - 0.5) < 0.05
    assert abs(np.mean(drawn) - 0.5) < 0.03
    assert abs(np.var(drawn) - 1 / (4 * (2 * 1.2 + 1))) < 0.01


def test_identity_keeps_half_of_the_batches() -> None:
    batch = torch.rand(2, 1, 2, 2)
    kept = [torch.allclose(MixUp()(batch, batch, np.random.default_rng(seed))[0], batch) for seed in range(600)]
    # Identity in 1/2 of the cases, and the trivial permutation in half of the others.
    assert abs(np.mean(kept) - 0.75) < 0.06
