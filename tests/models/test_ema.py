import pytest
import torch
from torch import nn

from mambair.models.ema import go_on_after, make_average, restart_average, update_average, updates_of


def constant_layer(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(layer.weight, value)
    return layer


def test_average_starts_at_the_first_weights_and_decays() -> None:
    layer = constant_layer(1.0)
    average = make_average(layer, decay=0.9)
    nn.init.constant_(layer.weight, 2.0)
    update_average(average, layer)
    assert average.module.weight.item() == 0.9 * 1.0 + (1 - 0.9) * 2.0
    assert not average.module.weight.requires_grad
    assert not average.module.training


def test_average_can_restart_at_loaded_weights() -> None:
    layer = constant_layer(1.0)
    average = make_average(layer, decay=0.9)
    nn.init.constant_(layer.weight, 5.0)
    restart_average(average, layer)
    assert average.module.weight.item() == 5.0
    nn.init.constant_(layer.weight, 6.0)
    update_average(average, layer)
    assert abs(average.module.weight.item() - 5.1) < 1e-12


def test_an_update_equals_torchs_own() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ours, torchs = make_average(network, decay=0.9), make_average(network, decay=0.9)
    for _ in range(3):
        with torch.no_grad():
            for tensor in (*network.parameters(), network[1].running_mean):
                tensor.add_(torch.randn_like(tensor))
        update_average(ours, network)
        torchs.update_parameters(network)
    expected = torchs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.state_dict().items())


def test_an_average_that_grows_forgets_its_start() -> None:
    layer = constant_layer(0.0)
    growing, fixed = make_average(layer, decay=0.999, warmup=True), make_average(layer, decay=0.999)
    nn.init.constant_(layer.weight, 1.0)
    expected = 0.0
    for n in range(100):
        update_average(growing, layer)
        update_average(fixed, layer)
        decay = min(0.999, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * 1.0
        assert abs(growing.module.weight.item() - expected) < 1e-6
    assert growing.module.weight.item() > 0.999 and fixed.module.weight.item() < 0.1


def test_it_ends_at_the_decay_that_was_asked_for() -> None:
    layer = constant_layer(0.0)
    average = make_average(layer, decay=0.9, warmup=True)
    go_on_after(average, 10_000)
    nn.init.constant_(layer.weight, 1.0)
    update_average(average, layer)
    assert abs(average.module.weight.item() - 0.1) < 1e-6
    assert updates_of(average) == 10_001
    restart_average(average, layer)
    assert updates_of(average) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_captured_update_sees_the_decay_grow_and_nobody_waits() -> None:
    eager_layer, layer = nn.Linear(8, 8).cuda(), nn.Linear(8, 8).cuda()
    layer.load_state_dict(eager_layer.state_dict())
    eager, captured = (make_average(each, decay=0.999, warmup=True) for each in (eager_layer, layer))
    with torch.no_grad():
        for parameter in (*eager_layer.parameters(), *layer.parameters()):
            parameter.fill_(3.0)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # which refuses to wait
        update_average(captured, layer)
    for _ in range(20):
        update_average(eager, eager_layer)
        graph.replay()
    for first, second in zip(eager.module.parameters(), captured.module.parameters(), strict=True):
        torch.testing.assert_close(first, second)
