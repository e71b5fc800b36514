import torch
from torch import nn

from mambair.models.ema import make_average, restart_average


def constant_layer(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(layer.weight, value)
    return layer


def test_average_starts_at_the_first_weights_and_decays() -> None:
    layer = constant_layer(1.0)
    average = make_average(layer, decay=0.9)
    nn.init.constant_(layer.weight, 2.0)
    average.update_parameters(layer)
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
    average.update_parameters(layer)
    assert abs(average.module.weight.item() - 5.1) < 1e-12
