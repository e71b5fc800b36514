"""What the GPU's tests of passes and of steps share: pairs of networks, steps, and what is captured."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mambair.archs.replay import KEPT_AS, passes, steps
from tests.archs.replay.tiny import CLASSIC, MAMBAIR, UNET, V2, make

ON_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
KINDS = pytest.mark.parametrize("options", [MAMBAIR, CLASSIC, UNET, V2], ids=["light", "classic", "unet", "v2"])
TYPES = pytest.mark.parametrize("amp", [None, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])


def pair(options: dict = MAMBAIR) -> tuple[nn.Module, nn.Module]:
    """Two equal networks: one that replays, one that does not."""
    return make(options).cuda(), make(options, replaying=False).cuda()


def graphs_of(network: nn.Module) -> int:
    """How many of its shapes and kinds of steps are captured."""
    kept = network.__dict__.get(KEPT_AS)
    if kept is None:
        return 0
    return sum(held is not None for held in (*kept.passes._graphs.values(), *kept.steps._steps.values()))


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).cuda()


def autocast(amp: torch.dtype | None) -> torch.autocast:
    return torch.autocast("cuda", amp, enabled=amp is not None)


def step(network: Callable[[Tensor], Tensor], x: Tensor, amp: torch.dtype | None = None, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    with autocast(amp):
        result = network(x)
    (result.float() ** 2).mean().backward()
    return result.detach()


def warm_steps(network: nn.Module, x: Tensor, amp: torch.dtype | None = None) -> None:
    for _ in range(steps.WARMUP + 1):
        step(network, x, amp)
    network.zero_grad()
    assert graphs_of(network) == 1


def warm_passes(network: nn.Module, x: Tensor) -> None:
    with torch.inference_mode():
        for _ in range(passes.WARMUP + 1):
            network(x)
    assert graphs_of(network) >= 1


def assert_same_gradients(network: nn.Module, plain: nn.Module) -> None:
    for (name, a), b in zip(network.named_parameters(), plain.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        assert a.grad is None or torch.equal(a.grad, b.grad), name
