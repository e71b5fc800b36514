"""Passes replayed as CUDA graphs give what plain ones give, bit for bit."""

import pytest
import torch
from torch import Tensor

from mambair.archs import build_network
from mambair.data.loaders import LoadedBatch, LoadedStep
from mambair.engine.train.passes import WARMUP, GraphedPasses
from mambair.engine.train.step import Stepper
from mambair.losses import L1Loss
from mambair.models.optimizers import ScheduledOptimizer
from mambair.models.restoration_model import RestorationModel
from mambair.runtime.distributed import ProcessGroup

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

TINY = {
    "type": "MambaIR", "upscale": 2, "embed_dim": 20, "depths": [2, 2], "d_state": 8, "mlp_ratio": 2.0,
    "upsampler": "pixelshuffledirect", "drop_path_rate": 0.5,
}  # fmt: skip
V2 = {
    "type": "MambaIRv2Light", "upscale": 2, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 2], "d_state": 8,
    "window_size": 8, "num_tokens": 16, "inner_rank": 4, "mlp_ratio": 1.0, "upsampler": "pixelshuffledirect",
}  # fmt: skip


def make_stepper(graphs: bool, amp: torch.dtype | None, options: dict = TINY) -> Stepper:
    torch.manual_seed(0)
    network = build_network(options)
    device = torch.device("cuda", 0)
    model = RestorationModel(network, device=device, losses={"l_pix": L1Loss()}, amp_dtype=amp)
    model.optimizers["net_g"] = ScheduledOptimizer(model.networks["net_g"], {"type": "Adam", "lr": 1e-3}, None)
    model.add_average("net_g", 0.9)
    return Stepper(model, ProcessGroup(), seed=3, graphs=graphs)


def make_step(iteration: int, sizes: tuple[int, ...]) -> LoadedStep:
    generator = torch.Generator().manual_seed(iteration)
    batches, first = [], 0
    for size in sizes:
        lq, gt = (torch.rand(size, 3, side, side, generator=generator) for side in (12, 24))
        batches.append(LoadedBatch({"lq": lq, "gt": gt, "lq_path": ["a"] * size}, 100 * iteration + first))
        first += size
    return LoadedStep(iteration, first, batches)


def train(stepper: Stepper, sizes: tuple[int, ...], iterations: int) -> tuple[list[float], list[Tensor]]:
    losses = [stepper.step(make_step(i, sizes), False).losses["l_pix"].item() for i in range(iterations)]
    model = stepper.model
    return losses, [*model.networks["net_g"].parameters(), *model.averages["net_g"].module.parameters()]


@pytest.mark.parametrize("amp", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sizes", [(4,), (3, 3, 1)])
@pytest.mark.parametrize("options", [TINY, V2], ids=["MambaIR", "MambaIRv2"])
def test_graphs_change_nothing(options: dict, sizes: tuple[int, ...], amp: torch.dtype | None) -> None:
    """Draws included: dropped paths, and the tokens that pixels are routed to."""
    plain, graphed = make_stepper(False, amp, options), make_stepper(True, amp, options)
    expected_losses, expected = train(plain, sizes, WARMUP + 4)
    losses, found = train(graphed, sizes, WARMUP + 4)
    assert isinstance(graphed.passes, GraphedPasses)
    assert graphed.passes._graphs
    assert losses == expected_losses
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("options", [TINY, V2], ids=["MambaIR", "MambaIRv2"])
def test_compiled_blocks_are_captured_too(options: dict) -> None:
    plain, graphed = make_stepper(False, torch.bfloat16, options), make_stepper(True, torch.bfloat16, options)
    graphed.model.compile()
    expected, _ = train(plain, (4,), WARMUP + 4)
    found, _ = train(graphed, (4,), WARMUP + 4)
    assert found == pytest.approx(expected, rel=1e-2)
