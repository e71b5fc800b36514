"""Exponential moving average of a network's weights, by torch's AveragedModel."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def make_average(network: nn.Module, decay: float) -> AveragedModel:
    """An average that starts at the network's present weights: average = decay * average + (1 - decay) * weights.

    Call `update_average` after each step; `.module` is the averaged network, in evaluation mode.
    """
    assert 0 < decay < 1, f"decay {decay}"
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))
    average.requires_grad_(False).eval()
    restart_average(average, network)
    return average


def restart_average(average: AveragedModel, network: nn.Module) -> None:
    """Set the average to the network's weights, as after loading weights that carry no average."""
    # AveragedModel copies instead of averaging at its first update: that update is spent here, on the start weights.
    average.n_averaged.zero_()
    average.update_parameters(network)


@torch.no_grad()
def update_average(average: AveragedModel, network: nn.Module) -> None:
    """Take the network's weights into the average, and copy its buffers.

    What `AveragedModel.update_parameters` does from its second call on, but for sending its count of updates to the
    device, which this average does not depend on: a GPU would be waited for.
    """
    assert average.multi_avg_fn is not None
    average.multi_avg_fn(list(average.module.parameters()), list(network.parameters()), average.n_averaged)
    for mine, theirs in zip(average.module.buffers(), network.buffers(), strict=True):
        mine.copy_(theirs)
    average.n_averaged += 1
