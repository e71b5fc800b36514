"""Plain modules on a GPU: replayed passes and steps are plain ones, bit by bit, whatever is done around them."""

import copy
import gc
import os
import pickle
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from mambair.archs.replay import KEPT_AS, passes, paused, steps
from tests.archs.replay.tiny import CLASSIC, MAMBAIR, UNET, V2, make

pytestmark = [
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


class TestPasses:
    """Without gradients."""

    @KINDS
    @TYPES
    def test_results_are_those_of_plain_passes(self, options: dict, amp: torch.dtype | None) -> None:
        network, plain = (net.eval() for net in pair(options))
        with torch.inference_mode():
            results = []
            for seed in range(passes.WARMUP + 3):
                x = image(1, 3, 33, 20, seed=seed)
                with autocast(amp):
                    results.append((network(x), plain(x)))
        assert graphs_of(network) == 1
        assert all(torch.equal(a, b) for a, b in results)  # also those that came before others

    def test_nothing_is_left_of_an_autocast_that_has_ended(self) -> None:
        """Casts of weights that autocast keeps are freed at its end, and must not be in a graph."""
        network, plain = (net.eval() for net in pair(CLASSIC))
        x = image(1, 3, 16, 16)
        with torch.no_grad():
            with autocast(torch.bfloat16):
                for _ in range(passes.WARMUP + 2):
                    network(x)
                expected = plain(x)
            junk = [torch.full((size,), float("nan"), device="cuda") for size in (2**8, 2**12, 2**16, 2**18) * 64]
            with autocast(torch.bfloat16):
                assert torch.equal(network(x), expected)
            with torch.no_grad():
                network.conv_first.weight.mul_(1.5)
                plain.conv_first.weight.mul_(1.5)
            with autocast(torch.bfloat16):
                assert torch.equal(network(x), plain(x))
            del junk

    def test_new_values_and_new_places_of_parameters_are_seen(self) -> None:
        network, plain = (net.eval() for net in pair())
        x = image(2, 3, 16, 16)
        warm_passes(network, x)
        for change in (
            lambda net: net.conv_first.weight.data.mul_(1.5),
            lambda net: net.load_state_dict({key: value * 0.9 for key, value in net.state_dict().items()}),
            lambda net: setattr(net.conv_first.weight, "data", net.conv_first.weight.data * 2),
            lambda net: setattr(net, "norm", nn.LayerNorm(12).cuda().eval()),
            lambda net: net.to(memory_format=torch.channels_last),
            lambda net: net.double().float(),
            lambda net: setattr(net, "img_range", 2.0),
        ):
            for _ in range(2):
                change(network)
                change(plain)
                with torch.inference_mode():
                    assert torch.equal(network(x), plain(x))
            warm_passes(network, x)

    def test_images_of_other_shapes_types_and_strides(self) -> None:
        network, plain = (net.eval() for net in pair())
        x = image(2, 3, 16, 12)
        kinds = [x, x[:1], x.contiguous(memory_format=torch.channels_last), x[:, :, ::2], x[:, :, :, :1].expand_as(x)]
        with torch.no_grad():
            for _ in range(passes.WARMUP + 3):
                assert all(torch.equal(network(kind), plain(kind)) for kind in kinds)
        assert graphs_of(network) == passes.KEPT_GRAPHS

    def test_frozen_networks_need_no_context(self) -> None:
        network, plain = (net.eval().requires_grad_(False) for net in pair())
        x = image(1, 3, 16, 16)
        for _ in range(passes.WARMUP + 2):
            result = network(x)
        assert graphs_of(network) == 1
        assert torch.equal(result, plain(x))

    def test_threads_get_their_own_results(self) -> None:
        network, plain = (net.eval() for net in pair())
        images = [image(1, 3, 24, 24, seed=seed) for seed in range(4)]
        with torch.inference_mode():
            expected = [plain(x) for x in images]
        found: dict[int, list[Tensor]] = {}

        def work(index: int) -> None:
            with torch.inference_mode(), torch.cuda.stream(torch.cuda.Stream()):
                found[index] = [network(images[index]) for _ in range(20)]
                torch.cuda.current_stream().synchronize()

        torch.cuda.synchronize()
        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert all(torch.equal(result, expected[index]) for index in found for result in found[index])

    def test_streams_take_turns(self) -> None:
        network, plain = (net.eval() for net in pair())
        images = [image(1, 3, 24, 24, seed=seed) for seed in range(40)]
        streams = [torch.cuda.Stream() for _ in range(3)]
        with torch.inference_mode():
            expected = [plain(x) for x in images]
            warm_passes(network, images[0])
            torch.cuda.synchronize()
            found = []
            for number, x in enumerate(images):
                with torch.cuda.stream(streams[number % 3]):
                    found.append(network(x))
            torch.cuda.synchronize()
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))

    def test_passes_within_somebodys_own_capture(self) -> None:
        network, plain = (net.eval() for net in pair())
        x = image(1, 3, 16, 16)
        warm_passes(network, x)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode():
            with torch.cuda.graph(graph):
                result = network(x)
            graph.replay()
            assert torch.equal(result, plain(x))

    def test_switches_hooks_and_modes(self) -> None:
        network, _ = (net.eval() for net in pair())
        x = image(1, 3, 16, 16)
        warm_passes(network, x)
        network.replays_graphs = False
        with torch.no_grad():
            network(x)
            assert graphs_of(network) == 0
            network.replays_graphs = True
            with paused():
                for _ in range(passes.WARMUP + 2):
                    network(x)
            assert graphs_of(network) == 0
            calls: list[int] = []
            handle = network.norm.register_forward_hook(lambda *_: calls.append(1))
            for _ in range(passes.WARMUP + 2):
                network(x)
            assert len(calls) == passes.WARMUP + 2
            handle.remove()
        warm_passes(network, x)
        network.train()
        with torch.no_grad():
            assert not torch.equal(network(x), network(x))  # paths are dropped

    def test_eval_routing_by_chance_is_drawn_anew(self) -> None:
        network, plain = (net.eval() for net in pair(V2 | {"routing": "gumbel"}))
        x = image(1, 3, 16, 16)
        with torch.no_grad():
            for seed in range(passes.WARMUP + 3):
                torch.manual_seed(seed)
                expected = plain(x)
                torch.manual_seed(seed)
                assert torch.equal(network(x), expected)
        assert graphs_of(network) == 0

    def test_other_threads_draw_random_numbers_meanwhile(self) -> None:
        network, plain = (net.eval() for net in pair())
        x = image(1, 3, 16, 16)
        drawn: list[Tensor] = []

        def run(x: Tensor) -> Tensor:
            thread = threading.Thread(target=lambda: drawn.append(torch.rand(3, device="cuda")))
            thread.start()
            thread.join()
            return network(x)

        kept = passes.Passes()
        torch.manual_seed(0)
        with torch.no_grad():
            for _ in range(passes.WARMUP):
                assert kept.result(network, x, run) is None
            result = kept.result(network, x, run)
        assert torch.equal(result, plain(x))
        torch.manual_seed(0)
        assert [value.tolist() for value in drawn] == [torch.rand(3, device="cuda").tolist()]

    @pytest.mark.parametrize("how", ["deleted", "moved", "switched off"])
    def test_memory_comes_back(self, how: str) -> None:
        def reserved() -> int:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            return torch.cuda.memory_reserved()

        x = image(1, 3, 128, 128)
        other = make().cuda().eval()
        warm_passes(other, x)  # workspaces of cuBLAS stay
        del other
        network = make().cuda().eval()
        step(network, x)
        network.zero_grad()
        before = reserved()
        warm_passes(network, x)
        assert reserved() > before
        if how == "switched off":
            network.replays_graphs = False
            with torch.no_grad():
                network(x)
        elif how == "moved":
            network.cpu()
        else:
            gc.disable()
            del network
            gc.enable()
        assert reserved() <= before

    def test_copies_have_no_graphs(self) -> None:
        network, plain = (net.eval() for net in pair())
        x = image(1, 3, 16, 16)
        warm_passes(network, x)
        for other in (copy.deepcopy(network), copy.copy(network), pickle.loads(pickle.dumps(network))):
            assert graphs_of(other) == 0
            with torch.inference_mode():
                assert torch.equal(other(x), plain(x))
        assert graphs_of(network) == 1

    def test_workspaces_that_somebody_clears(self) -> None:
        """A network's graphs use no memory that goes with another network."""
        first = make(CLASSIC).cuda().eval()
        network, plain = (net.eval() for net in pair(CLASSIC))
        x = image(1, 3, 32, 32)
        for net in (first, network):
            step_result = [step(net, x) for _ in range(steps.WARMUP + 2)]
            warm_passes(net, x)
        del first, step_result
        gc.collect()
        torch.cuda.synchronize()
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()
        junk = [torch.full((2**20,), float("nan"), device="cuda") for _ in range(64)]
        network.zero_grad()
        step(network, x)
        step(plain, x)
        assert_same_gradients(network, plain)
        with torch.inference_mode():
            assert torch.equal(network(x), plain(x))
        assert all(tensor.isnan().all() for tensor in junk)


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
def one_process() -> Iterator[None]:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29577")
    dist.init_process_group("nccl", rank=0, world_size=1)
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
