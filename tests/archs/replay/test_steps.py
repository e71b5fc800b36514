"""Passes with gradients: when they are captured, and that autograd's users see what it always shows. By fakes."""

import copy
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mambair.archs.replay import gpu, steps
from mambair.archs.replay.steps import KEPT_STEPS, WARMUP, Steps
from mambair.archs.replay.turns import Turns
from tests.archs.replay.tiny import make

pytestmark = pytest.mark.usefixtures("on_cpu")

Call = Callable[[Tensor], Tensor]


def replaying(network: nn.Module) -> tuple[Steps, Call]:
    """A network's steps, and the network called by way of them."""
    kept = Steps()

    def call(x: Tensor) -> Tensor:
        found = kept.result(network, x, network.forward)
        return network(x) if found is None else found

    return kept, call


def warm(call: Call, x: Tensor) -> None:
    for _ in range(WARMUP):
        call(x).sum().backward()


def warmed(x: Tensor) -> tuple[nn.Module, nn.Module, Steps, Call]:
    """A network, an equal one that is not replayed, the steps that are captured next, and the call."""
    network = make().train()
    kept, call = replaying(network)
    warm(call, x)
    network.zero_grad()
    return network, copy.deepcopy(network), kept, call


def captured(kept: Steps) -> list[steps.Step]:
    return [step for step in kept._steps.values() if step is not None]


def same_gradients(network: nn.Module, other: nn.Module) -> bool:
    pairs = zip(network.parameters(), other.parameters(), strict=True)
    return all(a.grad is not None and torch.equal(a.grad, b.grad) for a, b in pairs)


X = torch.rand(2, 3, 5, 4)


def test_steps_and_accumulated_gradients_are_those_of_plain_ones() -> None:
    network, plain, kept, call = warmed(X)
    inputs = [X, 1 - X, X / 2]
    for function, owner in ((call, network), (plain, plain)):
        torch.manual_seed(1)
        for x in inputs:
            (function(x) ** 2).sum().backward()
        assert owner is network or same_gradients(network, plain)
    assert captured(kept)[0].captured.forwards == len(inputs)


def test_several_passes_before_one_backward_pass() -> None:
    network, plain, kept, call = warmed(X)
    for function in (call, plain):
        torch.manual_seed(1)  # dropped paths differ from pass to pass, and are drawn again as they were
        sum((function(x) ** 2).sum() for x in (X, 1 - X, X / 2)).backward()
        after = torch.rand(1)
    assert same_gradients(network, plain)
    assert captured(kept)[0].captured.forwards == 3 + 2
    torch.manual_seed(1)
    sum((call(x) ** 2).sum() for x in (X, 1 - X, X / 2)).backward()
    assert torch.equal(torch.rand(1), after)  # nothing was drawn for the passes that were replayed once more


def test_a_second_backward_pass_after_a_newer_forward_pass() -> None:
    network, plain, _, call = warmed(X)
    for function in (call, plain):
        torch.manual_seed(1)
        loss = (function(X) ** 2).sum()
        loss.backward(retain_graph=True)
        (function(1 - X) ** 2).sum().backward()
        loss.backward()
    assert same_gradients(network, plain)


def test_results_and_gradients_are_ones_own() -> None:
    network, _, _, call = warmed(X)
    results = [call(X), call(1 - X)]
    values = [result.detach().clone() for result in results]
    results[1].sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    kept = [gradient.clone() for gradient in gradients]
    network.zero_grad(set_to_none=True)
    (call(X / 2) ** 2).sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(results, values, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(gradients, kept, strict=True))


def test_the_gradient_of_the_input() -> None:
    x = X.clone().requires_grad_()
    _, plain, kept, call = warmed(x)
    found = []
    for function in (call, plain):
        torch.manual_seed(1)
        found.append(torch.autograd.grad((function(x) ** 2).sum(), x)[0])
    assert torch.equal(*found)
    assert captured(kept)


def test_a_changed_parameter_is_told_before_gradients_are_wrong() -> None:
    network, _, _, call = warmed(X)
    loss = call(X).sum()
    with torch.no_grad():
        network.conv_first.weight.mul_(2)
    with pytest.raises(RuntimeError, match="changed between a forward pass and its backward pass"):
        loss.backward()


def test_twice_differentiated_is_refused_and_plain_where_seen_before() -> None:
    _, _, _, call = warmed(X)
    x = X.clone().requires_grad_()
    network = make().train()
    kept, call = replaying(network)
    for _ in range(WARMUP + 2):
        torch.autograd.grad(call(x).sum(), x, create_graph=True)
    assert not kept._steps
    warm(call, x)
    (first,) = torch.autograd.grad((call(x) ** 2).sum(), x, create_graph=True)
    assert captured(kept)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_hooks_on_parameters_run_once_a_step() -> None:
    network, plain, kept, call = warmed(X)
    calls = []
    for owner in (network, plain):
        owner.conv_first.weight.register_hook(lambda gradient: calls.append(1) or gradient * 3)
    for function in (call, plain):
        torch.manual_seed(1)
        function(X).sum().backward()
    assert captured(kept)
    assert len(calls) == 2
    assert same_gradients(network, plain)


def test_frozen_parameters_are_another_kind_of_step() -> None:
    network, _, kept, call = warmed(X)
    call(X).sum().backward()
    network.conv_first.requires_grad_(False)
    network.zero_grad()
    for _ in range(WARMUP + 1):
        call(X).sum().backward()
    assert network.conv_first.weight.grad is None
    assert network.norm.weight.grad is not None
    assert len(captured(kept)) == KEPT_STEPS
    network.conv_first.requires_grad_(True)
    call(X).sum().backward()
    assert network.conv_first.weight.grad is not None


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_around_the_network(reentrant: bool) -> None:
    network, plain, _, call = warmed(X)
    for function in (call, plain):
        torch.manual_seed(1)
        x = X.clone().requires_grad_()
        (checkpoint(function, x, use_reentrant=reentrant) ** 2).sum().backward()
    assert same_gradients(network, plain)


def test_only_steps_that_go_all_the_way_one_after_the_other_are_captured() -> None:
    network = make().train()
    kept, call = replaying(network)
    for _ in range(WARMUP + 2):
        call(X)
    assert not kept._steps
    for _ in range(WARMUP + 1):
        for x in (X, torch.rand(1, 3, 4, 4)):
            call(x).sum().backward()
    assert not kept._steps


def test_unused_graphs_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MOST_MISSES", 2)
    _, _, kept, call = warmed(X)
    call(X).sum().backward()
    assert captured(kept)
    for width in (3, 4, 3):
        assert captured(kept)
        call(torch.rand(1, 3, 4, width)).sum().backward()
    assert not captured(kept)


def test_graphs_that_would_take_too_much_memory_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "memory_of", lambda device: 399)  # a fake takes 100
    network, _, kept, call = warmed(X)
    for _ in range(2):
        call(X).sum().backward()
    assert list(kept._steps.values()) == [None]
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_watched_and_recomputed_steps_run_as_they_are() -> None:
    network, _, kept, call = warmed(X)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
        call(X).sum().backward()
    assert not kept._steps
    network.layers[0].residual_group.use_checkpoint = True
    warm(call, X)
    call(X).sum().backward()
    assert not kept._steps


def test_modules_have_their_own_parameters_after_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    network, _, kept, call = warmed(X)
    before = dict(network.named_parameters())

    def fail(run: gpu.Run, x: Tensor, parameters: object, turns: object) -> None:
        assert all(p is not before[name] for name, p in network.named_parameters())
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(gpu, "capture_step", fail)
    call(X).sum().backward()
    assert list(kept._steps.values()) == [None]
    assert all(p is before[name] for name, p in network.named_parameters())


def test_one_thread_has_the_graphs_of_a_device() -> None:
    """Captures wait for autograd's thread, in which another's backward pass might wait for its turn."""
    network, plain, kept, call = warmed(X)
    call(X).sum().backward()
    network.zero_grad()
    step = captured(kept)[0].captured
    forwards = step.forwards

    def work() -> None:
        torch.manual_seed(1)
        for _ in range(WARMUP + 2):
            call(X).sum().backward()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert step.forwards == forwards
    torch.manual_seed(1)
    for _ in range(WARMUP + 2):
        plain(X).sum().backward()
    assert same_gradients(network, plain)
    call(X).sum().backward()
    assert step.forwards == forwards + 1


def test_the_graphs_of_a_thread_that_has_ended_are_another_ones(on_cpu: Turns) -> None:
    thread = threading.Thread(target=lambda: on_cpu.trains_here(True))
    thread.start()
    thread.join()
    assert not on_cpu.trains_here(False)
    assert on_cpu.trains_here(True)
    assert on_cpu.trains_here(False)


def test_a_backward_pass_does_not_wait_for_a_capture_that_waits_for_it(on_cpu: Turns) -> None:
    _, _, _, call = warmed(X)
    loss = call(X).sum()
    with on_cpu.taken(), on_cpu.waiting_for_autograd(), pytest.raises(RuntimeError, match="set replays_steps = False"):
        loss.backward()


def test_nothing_is_captured_within_a_backward_pass() -> None:
    _, _, kept, call = warmed(X)
    x = X.clone().requires_grad_()
    warm(call, x)
    checkpoint(call, x, use_reentrant=True).sum().backward()
    assert not kept._steps
