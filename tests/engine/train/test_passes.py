"""Gradients that are added to flat buffers equal those that backward() accumulates."""

import torch
from torch import nn

from mambair.engine.train.passes import add_gradients


def test_flat_gradients_equal_accumulated_ones() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last), nn.PReLU(3))
    parameters = [*network.parameters(), *nn.Linear(2, 2).parameters()]  # the last two are not used
    flat = torch.zeros(sum(parameter.numel() for parameter in parameters))
    parts = flat.split([parameter.numel() for parameter in parameters])
    for _ in range(2):
        loss = network(torch.randn(1, 2, 5, 6).contiguous(memory_format=torch.channels_last)).square().mean()
        loss.backward(retain_graph=True)
        add_gradients(loss, parameters, parts)
    for parameter, part in zip(parameters, parts, strict=True):
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert torch.equal(part.view_as(parameter), expected)
    assert [parameter.grad is None for parameter in parameters].count(True) == 2
