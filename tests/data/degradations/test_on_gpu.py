"""The degradation on a GPU: the CPU's pixels where nothing is random, the CPU's statistics where it is."""

import numpy as np
import pytest
import torch

from mambair.data.degradations.blur_kernels import KernelDistribution
from mambair.data.degradations.noise import add_poisson_noise
from mambair.data.degradations.pair_maker import PairMaker
from mambair.data.degradations.second_order import RoundSettings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

NOISELESS = RoundSettings(gaussian_odds=1.0, noise=(0.0, 0.0))


def batch_on(device: str) -> dict:
    rng = np.random.default_rng(0)
    kernels = {
        key: torch.from_numpy(np.stack([KernelDistribution().draw(rng) for _ in range(3)])).to(device)
        for key in ("kernel1", "kernel2", "sinc_kernel")
    }
    gt = torch.from_numpy(np.kron(rng.integers(256, size=(3, 3, 13, 13)), np.ones((16, 16)))).float() / 255
    return {"gt": gt.to(device), **kernels}


def test_pairs_are_the_cpus_without_noise():
    for seed in range(8):
        pairs = [
            PairMaker(4, 64, 6, NOISELESS, NOISELESS).make(batch_on(device), np.random.default_rng(seed))
            for device in ("cpu", "cuda")
        ]
        assert torch.equal(pairs[0][0], pairs[1][0].cpu())
        difference = (pairs[0][1] - pairs[1][1].cpu()).abs() * 255
        # Rounding in the two JPEG steps can go either way where a coefficient lies in the middle.
        assert difference.mean() < 0.2


def test_queue_and_noise_on_the_device():
    maker = PairMaker(4, 64, 4)
    for seed in range(4):
        gt, lq = maker.make(batch_on("cuda"), np.random.default_rng(seed))
        assert gt.is_cuda and lq.is_cuda and lq.isfinite().all()
    resumed = PairMaker(4, 64, 4)
    resumed.load_state_dict(maker.state_dict(), torch.device("cuda"))
    batches = [m.make(batch_on("cuda"), np.random.default_rng(9)) for m in (maker, resumed)]
    assert torch.equal(batches[0][1], batches[1][1])
    images = torch.linspace(0.2, 0.8, 256, device="cuda").expand(1, 3, 256, 256)
    generator = torch.Generator("cuda").manual_seed(0)
    noise = add_poisson_noise(
        images, torch.ones(1, device="cuda"), torch.zeros(1, dtype=bool, device="cuda"), generator
    )
    assert (noise - images)[..., 120:130].std().item() == pytest.approx((0.5 / 256) ** 0.5, rel=0.1)
