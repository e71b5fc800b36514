"""Passes without gradients: when a graph is made, what it gives, and when it is forgotten. Captured by fakes."""

import pytest
import torch
from torch import nn

from mambair.archs.replay import gpu
from mambair.archs.replay.passes import BYTES_A_VALUE, KEPT_GRAPHS, MOST_MEMORY, MOST_VALUES, WARMUP, Passes, values_of
from tests.archs.replay.tiny import make

pytestmark = pytest.mark.usefixtures("on_cpu")


def network_in_use() -> nn.Module:
    return make().eval()


@torch.no_grad()
def test_the_third_pass_of_a_shape_is_replayed_and_results_are_ones_own() -> None:
    network, passes = network_in_use(), Passes()
    x = torch.rand(1, 3, 6, 5)
    assert [passes.result(network, x, network.forward) for _ in range(WARMUP)] == [None] * WARMUP
    first = passes.result(network, x, network.forward)
    second = passes.result(network, 1 - x, network.forward)
    assert torch.equal(first, network(x))
    assert torch.equal(second, network(1 - x))


@torch.no_grad()
def test_so_many_shapes_are_kept_and_a_change_forgets_all() -> None:
    network, passes = network_in_use(), Passes()

    def result(height: int, width: int) -> torch.Tensor | None:
        return passes.result(network, torch.rand(1, 3, height, width), network.forward)

    for width in range(3, 5 + KEPT_GRAPHS):
        for _ in range(WARMUP + 1):
            found = result(4, width)
        assert found is not None
    assert len(passes._graphs) == KEPT_GRAPHS
    for _ in range(WARMUP + 1):  # in turns: those that are there stay
        for size in range(11, 13):
            assert result(size, size) is None
    assert result(4, width) is not None
    network.conv_first.weight.data = network.conv_first.weight.data.clone()
    assert result(4, width) is None
    assert len(passes._graphs) == 0


@torch.no_grad()
def test_settings_of_pytorch_belong_to_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    network, passes = network_in_use(), Passes()
    x = torch.rand(1, 3, 6, 5)
    for _ in range(WARMUP + 1):
        found = passes.result(network, x, network.forward)
    assert found is not None
    monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", "reference")
    assert passes.result(network, x, network.forward) is None
    monkeypatch.delenv("MAMBAIR_SCAN_BACKEND")
    assert passes.result(network, x, network.forward) is not None
    with torch.inference_mode():
        assert passes.result(network, x, network.forward) is None


@torch.no_grad()
def test_a_shape_that_cannot_be_captured_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network, passes = network_in_use(), Passes()
    tried = []

    def fail(*_: object) -> None:
        tried.append(1)
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(gpu, "capture_pass", fail)
    for _ in range(WARMUP + 3):
        assert passes.result(network, torch.rand(1, 3, 4, 4), network.forward) is None
    assert len(tried) == 1


def is_replayed(network: nn.Module, x: torch.Tensor) -> bool:
    passes = Passes()
    return [passes.result(network, x, network.forward) for _ in range(WARMUP + 1)][-1] is not None


@torch.no_grad()
def test_what_is_random_or_large_or_hooked_runs_as_it_is() -> None:
    x = torch.rand(1, 3, 4, 4)
    assert is_replayed(network_in_use(), x)
    assert not is_replayed(make().train(), x)
    network = network_in_use()
    network.pos_drop.train()
    assert not is_replayed(network, x)
    network = network_in_use()
    network.norm.register_forward_hook(lambda *_: None)
    assert not is_replayed(network, x)
    large = torch.empty(1, 3, 1, 1).expand(1, 3, 2**11, 2**10)
    assert values_of(network, large) > MOST_VALUES
    assert not is_replayed(network_in_use(), large)


@torch.no_grad()
def test_graphs_keep_a_share_of_the_memory_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = network_in_use(), torch.rand(1, 3, 6, 5)
    needed = values_of(network, x) * BYTES_A_VALUE / MOST_MEMORY
    for memory, expected in ((needed * 1.01, True), (needed * 0.99, False)):
        monkeypatch.setattr(gpu, "memory_of", lambda device, memory=memory: memory)
        assert is_replayed(network, x) == expected


class Somebodys(nn.LayerNorm):
    """A part that this project knows nothing of."""


@torch.no_grad()
def test_foreign_parts_are_replayed_only_if_somebody_says_so() -> None:
    network, passes = network_in_use(), Passes()
    network.norm = Somebodys(12).eval()
    del network.replays_graphs  # what the class says is not said of foreign parts
    x = torch.rand(1, 3, 4, 4)
    assert [passes.result(network, x, network.forward) for _ in range(WARMUP + 1)][-1] is None
    network.replays_graphs, passes = True, Passes()
    assert [passes.result(network, x, network.forward) for _ in range(WARMUP + 1)][-1] is not None
