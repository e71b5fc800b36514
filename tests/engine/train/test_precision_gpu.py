"""bf16 trains as fp32 does: the losses of 300 steps of a small network stay within 2 %, and finite."""

import math

import pytest
import torch

from mambair.archs import build_network
from mambair.data.loaders import LoadedBatch, LoadedStep
from mambair.engine.train.step import Stepper
from mambair.losses import L1Loss
from mambair.models.optimizers import ScheduledOptimizer
from mambair.models.restoration_model import RestorationModel
from mambair.runtime.distributed import ProcessGroup

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

STEPS = 300
WINDOW = 50
SMALL = {
    "type": "MambaIR", "upscale": 2, "embed_dim": 32, "depths": [2, 2], "d_state": 16, "mlp_ratio": 2.0,
    "upsampler": "pixelshuffledirect", "drop_path_rate": 0.0,
}  # fmt: skip


def make_step(iteration: int) -> LoadedStep:
    """Smooth random images and their means over 2x2 pixels."""
    noise = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(iteration))
    gt = torch.nn.functional.interpolate(noise, size=64, mode="bicubic").clamp(0, 1)
    lq = torch.nn.functional.avg_pool2d(gt, 2)
    return LoadedStep(iteration, 8, [LoadedBatch({"lq": lq, "gt": gt}, 8 * iteration)])


def losses(amp: torch.dtype | None) -> list[float]:
    torch.manual_seed(0)
    device = torch.device("cuda", 0)
    model = RestorationModel(build_network(SMALL), device=device, losses={"l_pix": L1Loss()}, amp_dtype=amp)
    model.optimizers["net_g"] = ScheduledOptimizer(model.networks["net_g"], {"type": "Adam", "lr": 5e-4}, None)
    stepper = Stepper(model, ProcessGroup(), seed=0, graphs=True)
    return [stepper.step(make_step(i), False).losses["l_pix"].item() for i in range(STEPS)]


def test_bf16_follows_fp32() -> None:
    expected, found = losses(None), losses(torch.bfloat16)
    assert all(map(math.isfinite, found))
    for first in range(0, STEPS, WINDOW):
        means = [sum(values[first : first + WINDOW]) / WINDOW for values in (found, expected)]
        print(f"steps {first} to {first + WINDOW}: bf16 {means[0]:.5f}, fp32 {means[1]:.5f}")
        assert means[0] == pytest.approx(means[1], rel=0.02)
