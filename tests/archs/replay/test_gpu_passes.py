"""Plain modules on a GPU: replayed passes are plain ones, bit by bit, whatever is done around them."""

import copy
import gc
import pickle
import threading

import pytest
import torch
from torch import Tensor, nn

from mambair.archs.replay import passes, paused, steps
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
    warm_passes,
)
from tests.archs.replay.tiny import CLASSIC, V2, make

pytestmark = ON_GPU


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
