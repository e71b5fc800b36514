"""Plain modules that replay their passes: what a graph rests on, when it is made and when it is forgotten."""

import threading

import pytest
import torch
from torch import Tensor, nn

from mambair.archs import build_network, replay
from mambair.archs.replay import KEPT_GRAPHS, WARMUP, Fingerprint, Replayer, is_worthwhile

TINY = {
    "type": "MambaIR",
    "upscale": 2,
    "embed_dim": 12,
    "depths": [1],
    "d_state": 2,
    "mlp_ratio": 1.0,
    "upsampler": "pixelshuffledirect",
}
gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def network() -> nn.Module:
    torch.manual_seed(0)
    return build_network(TINY).eval()


def new_place(net: nn.Module) -> None:
    net.conv_first.weight.data = net.conv_first.weight.data.clone()


def new_module(net: nn.Module) -> None:
    net.layers[0].residual_group.blocks[0].self_attention.out_proj = nn.Linear(12, 12, bias=False)


def new_hook(net: nn.Module) -> None:
    net.conv_after_body.register_forward_hook(lambda *_: None)


def dropout(net: nn.Module) -> None:
    net.pos_drop.train()


def new_setting(net: nn.Module) -> None:
    net.img_range = 255.0


@pytest.mark.parametrize("change", [new_place, new_module, new_hook, dropout, new_setting])
def test_a_fingerprint_fits_until_something_changes(change) -> None:
    net = network()
    fingerprint = Fingerprint(net)
    assert fingerprint.is_capturable
    with torch.no_grad():
        net.conv_first.weight.mul_(2)  # graphs read values where they lie
    assert fingerprint.fits(net)
    change(net)
    assert not fingerprint.fits(net)


def test_compiled_blocks_are_not_captured() -> None:
    net = network()
    net.layers[0].residual_group.blocks[0].compile(backend="eager")
    assert not Fingerprint(net).is_capturable


class FakeGraph:
    """Computes what a graph would have kept."""

    def __init__(self, run, source: Tensor, result: Tensor) -> None:
        self.run, self.source, self.result = run, source, result

    def replay(self) -> None:
        self.result.copy_(self.run(self.source))


@pytest.fixture
def replayer(monkeypatch: pytest.MonkeyPatch) -> Replayer:
    """Captures on the CPU."""

    def capture(self, key, x, run) -> None:
        while len(self._graphs) >= KEPT_GRAPHS:
            self._graphs.popitem(last=False)
        source = x.clone()
        result = run(source)
        self._graphs[key] = FakeGraph(run, source, result), source, result

    monkeypatch.setattr(replay, "_circumstances", lambda device: ())
    monkeypatch.setattr(Replayer, "_capture", capture)
    return Replayer()


@torch.no_grad()
def test_the_third_pass_of_a_shape_is_replayed_and_results_are_ones_own(replayer: Replayer) -> None:
    net = network()
    x = torch.rand(1, 3, 6, 5)
    assert [replayer.replay(net, x, net) for _ in range(WARMUP)] == [None] * WARMUP
    first = replayer.replay(net, x, net)
    second = replayer.replay(net, 1 - x, net)
    assert torch.equal(first, net(x))
    assert torch.equal(second, net(1 - x))


@torch.no_grad()
def test_so_many_shapes_are_kept_and_a_change_forgets_all(replayer: Replayer) -> None:
    net = network()
    for width in range(3, 5 + KEPT_GRAPHS):
        for _ in range(WARMUP + 1):
            result = replayer.replay(net, torch.rand(1, 3, 4, width), net)
        assert result is not None
    assert len(replayer._graphs) == KEPT_GRAPHS
    for _ in range(WARMUP + 1):  # in turns: those that are there stay
        for size in range(11, 13):
            assert replayer.replay(net, torch.rand(1, 3, size, size), net) is None
    new_place(net)
    assert replayer.replay(net, torch.rand(1, 3, 4, width), net) is None
    assert len(replayer._graphs) == 0


def test_only_passes_that_wait_for_python_are_replayed() -> None:
    net = network()
    with torch.no_grad():
        assert not is_worthwhile(net, torch.rand(1, 3, 6, 5))  # not on a GPU


def replaying_network() -> nn.Module:
    net = network().cuda()
    net.replays_graphs = True
    return net


class TestOnGpu:
    pytestmark = gpu

    def passes(self, net: nn.Module, x: Tensor, count: int = WARMUP + 2) -> list[Tensor]:
        with torch.inference_mode():
            return [net(x) for _ in range(count)]

    @pytest.mark.parametrize("half", [False, True])
    def test_replayed_results_are_those_of_the_plain_passes_bit_by_bit(self, half: bool) -> None:
        net = replaying_network()
        x = torch.rand(1, 3, 33, 20, device="cuda")
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            results = self.passes(net, x)
            assert all(torch.equal(result, results[0]) for result in results)
            other = self.passes(net, 1 - x, 1)[0]
            net.replays_graphs = False
            assert torch.equal(other, self.passes(net, 1 - x, 1)[0])

    def test_new_values_and_new_places_of_parameters_are_seen(self) -> None:
        net = replaying_network()
        x = torch.rand(2, 3, 16, 16, device="cuda")
        self.passes(net, x)
        for change in (lambda: net.conv_first.weight.data.mul_(1.5), lambda: new_place(net)):
            change()
            found = self.passes(net, x)
            net.replays_graphs = False
            assert torch.equal(found[-1], self.passes(net, x, 1)[0])
            net.replays_graphs = True

    def test_gradients_and_training_are_not_replayed(self) -> None:
        net = replaying_network()
        x = torch.rand(1, 3, 16, 16, device="cuda")
        self.passes(net, x)
        net(x).sum().backward()
        assert all(parameter.grad is not None for parameter in net.parameters())
        assert not is_worthwhile(net.train(), x)

    def test_threads_get_their_own_results(self) -> None:
        net = replaying_network()
        images = [torch.rand(1, 3, 24, 24, device="cuda") for _ in range(4)]
        expected = [self.passes(net, image, 1)[0] for image in images]
        found: dict[int, list[Tensor]] = {}

        def work(index: int) -> None:
            found[index] = self.passes(net, images[index], 20)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(torch.equal(result, expected[index]) for index in found for result in found[index])
        assert len(found) == 4
