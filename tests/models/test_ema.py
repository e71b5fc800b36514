import torch
from torch import nn

from mambair.models.ema import make_average, restart_average, update_average


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
