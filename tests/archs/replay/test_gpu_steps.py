"""Plain modules on a GPU: replayed training steps are plain ones, bit by bit, whatever is done around them."""

import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from mambair.archs.replay import steps
from tests.archs.replay.on_gpu import (
    KINDS,
    ON_GPU,
    TYPES,
    assert_same_gradients,
    autocast,
    graphs_of,
    image,
    pair,
    step,
    warm_steps,
)
from tests.archs.replay.tiny import MAMBAIR, make

pytestmark = ON_GPU


class TestSteps:
    """With gradients."""

    @KINDS
    @TYPES
    def test_training_is_that_of_plain_steps(self, options: dict, amp: torch.dtype | None) -> None:
        found = []
        for network in pair(options):
            network.train()
            optimizer = torch.optim.Adam(network.parameters(), 1e-3, fused=True)
            scaler = torch.amp.GradScaler("cuda", enabled=amp is torch.float16)
            torch.manual_seed(1)
            results = []
            for seed in range(steps.WARMUP + 5):
                optimizer.zero_grad(set_to_none=True)
                for half in range(2):  # gradients of two backward passes are accumulated
                    with autocast(amp):
                        result = network(image(2, 3, 16, 24, seed=2 * seed + half))
                    scaler.scale(result.float().square().mean()).backward()
                    results.append(result.detach())
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(network.parameters(), 0.5)
                scaler.step(optimizer)
                scaler.update()
            found.append((results, list(network.parameters()), graphs_of(network)))
        (results, parameters, graphs), (expected, expected_parameters, no_graphs) = found
        assert (graphs, no_graphs) == (1, 0)
        assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(parameters, expected_parameters, strict=True))

    def test_several_passes_before_one_backward_pass(self) -> None:
        network, plain = pair()
        x = image(2, 3, 16, 16)
        warm_steps(network, x)
        for net in (network, plain):
            torch.manual_seed(5)
            sum(net(image(2, 3, 16, 16, seed=seed)).square().mean() for seed in range(3)).backward()
        assert_same_gradients(network, plain)

    def test_a_second_backward_pass_after_a_newer_forward_pass(self) -> None:
        network, plain = pair()
        warm_steps(network, image(2, 3, 16, 16))
        for net in (network, plain):
            torch.manual_seed(5)
            loss = net(image(2, 3, 16, 16)).square().mean()
            loss.backward(retain_graph=True)
            net(image(2, 3, 16, 16, seed=1)).square().mean().backward()
            loss.backward()
        assert_same_gradients(network, plain)

    def test_results_and_gradients_are_ones_own(self) -> None:
        network, _ = pair()
        warm_steps(network, image(2, 3, 16, 16))
        result = network(image(2, 3, 16, 16))
        value = result.detach().clone()
        result.square().mean().backward()
        gradients = [parameter.grad for parameter in network.parameters()]
        values = [gradient.clone() for gradient in gradients]
        network.zero_grad()
        step(network, image(2, 3, 16, 16, seed=1))
        assert torch.equal(result, value)
        assert all(torch.equal(a, b) for a, b in zip(gradients, values, strict=True))

    def test_the_gradient_of_the_input_and_frozen_parameters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
        network, plain = (net.eval() for net in pair())
        for frozen in (False, True):
            for net in (network, plain):
                net.requires_grad_(not frozen)
            for seed in range(steps.WARMUP + 3):
                found = []
                for net in (network, plain):
                    x = image(2, 3, 16, 16, seed=seed).requires_grad_()
                    found.append(torch.autograd.grad(net(x.exp()).square().mean(), x)[0])
                assert torch.equal(*found)
        assert graphs_of(network) == 2

    def test_hooks_on_parameters_and_on_the_result(self) -> None:
        network, plain = pair()
        x = image(2, 3, 16, 16)
        warm_steps(network, x)
        for net in (network, plain):
            calls = []
            net.conv_first.weight.register_hook(lambda gradient, calls=calls: calls.append(1) or gradient * 3)
            torch.manual_seed(5)
            result = net(x)
            result.register_hook(lambda gradient: gradient * 2)
            result.clamp_(0, 1).square().mean().backward()
            assert calls == [1]
        assert_same_gradients(network, plain)

    def test_hooks_on_modules_are_called(self) -> None:
        network, plain = pair()
        x = image(2, 3, 16, 16)
        warm_steps(network, x)
        calls: list[int] = []
        handle = network.conv_after_body.register_full_backward_hook(lambda *_: calls.append(1))
        for _ in range(steps.WARMUP + 2):
            step(network, x)
        assert len(calls) == steps.WARMUP + 2
        handle.remove()
        network.zero_grad()
        for net in (network, plain):
            step(net, x)
        assert_same_gradients(network, plain)

    def test_an_optimizer_that_steps_too_early_is_told(self) -> None:
        network, _ = pair()
        x = image(2, 3, 16, 16)
        warm_steps(network, x)
        step(network, x)
        loss = network(x).mean()
        torch.optim.SGD(network.parameters(), 0.1).step()
        with pytest.raises(RuntimeError, match="changed between a forward pass and its backward pass"):
            loss.backward()

    @pytest.mark.parametrize("reentrant", [False, True])
    def test_checkpoints_around_and_within(self, reentrant: bool) -> None:
        network, plain = pair()
        warm_steps(network, image(2, 3, 16, 16))
        for net in (network, plain):
            torch.manual_seed(5)
            x = image(2, 3, 16, 16).requires_grad_()
            checkpoint(net, x, use_reentrant=reentrant).square().mean().backward()
        assert_same_gradients(network, plain)
        network, plain = pair(MAMBAIR | {"use_checkpoint": True})
        for net in (network, plain):
            for _ in range(steps.WARMUP + 2):
                step(net, image(2, 3, 16, 16))
        assert graphs_of(network) == 0
        assert_same_gradients(network, plain)

    def test_anomaly_detection(self) -> None:
        network, plain = (net.eval() for net in pair())
        x = image(1, 3, 8, 8)
        warm_steps(network, x)
        with torch.autograd.set_detect_anomaly(True):
            step(network, x)
        step(plain, x)
        assert_same_gradients(network, plain)

    def test_functional_calls_with_other_parameters(self) -> None:
        network, plain = (net.eval() for net in pair())
        x = image(1, 3, 8, 8)
        warm_steps(network, x)
        for _ in range(steps.WARMUP + 2):
            for net in (network, plain):
                net.zero_grad()
                others = {name: p * 1.5 for name, p in net.named_parameters()}
                torch.func.functional_call(net, others, (x,)).square().mean().backward()
            assert_same_gradients(network, plain)

    def test_threads_train_with_their_own_images(self) -> None:
        network, plain = (net.eval() for net in pair())
        images = [image(1, 3, 16, 16, seed=seed) for seed in range(3)]

        def gradients(net: nn.Module, x: Tensor) -> list[Tensor]:
            return list(torch.autograd.grad(net(x).square().mean(), list(net.parameters())))

        warm_steps(network, images[0])
        expected = [gradients(plain, x) for x in images]
        found: dict[int, list[list[Tensor]]] = {}

        def work(index: int) -> None:
            with torch.cuda.stream(torch.cuda.Stream()):
                found[index] = [gradients(network, images[index]) for _ in range(8)]
                torch.cuda.current_stream().synchronize()

        torch.cuda.synchronize()
        threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        torch.cuda.synchronize()
        assert sorted(found) == [0, 1, 2]
        for index, turns in found.items():
            for turn in turns:
                assert all(torch.equal(a, b) for a, b in zip(turn, expected[index], strict=True))

    def test_earlier_results_that_are_still_held(self) -> None:
        """Autograd's leaves then belong to the stream of earlier passes."""
        network, plain = pair()
        x = image(2, 3, 16, 16)
        kept = []
        for net in (network, plain):
            for seed in range(steps.WARMUP + 2):
                torch.manual_seed(seed)
                loss = net(x).square().mean()
                kept.append(loss)
                loss.backward(retain_graph=True)
        assert graphs_of(network) == 1
        assert_same_gradients(network, plain)

    def test_within_somebodys_own_capture(self) -> None:
        network, plain = (net.eval() for net in pair())
        x = image(1, 3, 16, 16)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(steps.WARMUP + 2):
                step(network, x)
        torch.cuda.current_stream().wait_stream(side)
        network.zero_grad()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            network(x).square().mean().backward()
        graph.replay()
        plain(x).square().mean().backward()
        assert_same_gradients(network, plain)

    def test_graphed_callables_of_pytorch(self) -> None:
        network, plain = (net.eval() for net in pair())
        x = image(1, 3, 16, 16)
        warm_steps(network, x)
        graphed = torch.cuda.make_graphed_callables(network, (x,))
        network.zero_grad()
        for _ in range(steps.WARMUP + 2):
            for net, owner in ((graphed, network), (plain, plain)):
                owner.zero_grad()  # PyTorch's own would add to gradients that the next replay overwrites
                step(net, x)
            assert_same_gradients(network, plain)

    def test_a_network_that_would_take_too_much_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(steps, "MOST_MEMORY", 1e-9)
        network, plain = pair()
        for net in (network, plain):
            for seed in range(steps.WARMUP + 3):
                step(net, image(2, 3, 16, 16), seed=seed)
        assert graphs_of(network) == 0
        assert_same_gradients(network, plain)

    def test_memory_comes_back(self) -> None:
        x = image(2, 3, 64, 64)
        first = make().cuda()
        warm_steps(first, x)  # workspaces of cuBLAS stay
        del first
        network = make().cuda()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved()
        warm_steps(network, x)
        gc.disable()
        del network
        gc.enable()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        assert torch.cuda.memory_reserved() <= before

    def test_deterministic_algorithms(self) -> None:
        network, plain = pair()
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            for net in (network, plain):
                for seed in range(steps.WARMUP + 2):
                    step(net, image(2, 3, 16, 16), seed=seed)
        finally:
            torch.use_deterministic_algorithms(False)
        assert graphs_of(network) == 1
        assert_same_gradients(network, plain)


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    # They meet in a file: tests that run at the same time would want the same port.
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("views", [False, True])
def test_distributed_training(views: bool) -> None:
    found = []
    for network in pair():
        wrapped = DistributedDataParallel(network, device_ids=[0], gradient_as_bucket_view=views)
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        for seed in range(steps.WARMUP + 4):
            optimizer.zero_grad()
            with wrapped.no_sync():
                step(wrapped, image(2, 3, 16, 16, seed=seed), seed=seed)
            step(wrapped, image(2, 3, 16, 16, seed=seed + 50), seed=seed)
            optimizer.step()
        found.append((list(network.parameters()), graphs_of(network)))
    assert (found[0][1], found[1][1]) == (1, 0)
    assert all(torch.equal(a, b) for a, b in zip(found[0][0], found[1][0], strict=True))
