"""Exponential moving average of a network's weights, by torch's AveragedModel."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Tensors = tuple[Tensor, ...] | list[Tensor]


def make_average(network: nn.Module, decay: float, warmup: bool = False) -> AveragedModel:
    """An average that starts at the network's present weights: average = decay * average + (1 - decay) * weights.

    With `warmup` the decay of update n (from 0) is min(decay, (1 + n) / (10 + n)): the average forgets its start, which
    a decay of 0.999 alone keeps in sight for thousands of updates. Call `update_average` after each step; `.module` is
    the averaged network, in evaluation mode.
    """
    assert 0 < decay < 1, f"decay {decay}"
    average = AveragedModel(network, multi_avg_fn=growing_average(decay) if warmup else get_ema_multi_avg_fn(decay))
    average.requires_grad_(False).eval()
    average.n_averaged = average.n_averaged.to(next(network.parameters()).device)  # where an update finds it at once
    restart_average(average, network)
    return average


def growing_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """The update of an average whose decay grows with the number of updates, which is read where it lies.

    On a GPU that is a tensor, and nobody waits for it; an update that is captured in a graph sees it grow.
    """

    @torch.no_grad()
    def update(averages: Tensors, weights: Tensors, n_averaged: Tensor | int) -> None:
        assert isinstance(n_averaged, Tensor)
        done = n_averaged.float() - 1  # the first one is the start itself
        new = 1 - torch.clamp((1 + done) / (10 + done), max=decay)
        changes = torch._foreach_sub(weights, averages)
        torch._foreach_mul_(changes, new)
        torch._foreach_add_(averages, changes)

    return update


def restart_average(average: AveragedModel, network: nn.Module) -> None:
    """Set the average to the network's weights, as after loading weights that carry no average."""
    # AveragedModel copies instead of averaging at its first update: that update is spent here, on the start weights.
    average.n_averaged.zero_()
    average.update_parameters(network)


def updates_of(average: AveragedModel) -> int:
    """How often an average has been updated since its start."""
    return int(average.n_averaged.item()) - 1


def go_on_after(average: AveragedModel, updates: int) -> None:
    """Let an average whose weights have been loaded go on as after so many updates."""
    average.n_averaged.fill_(updates + 1)


@torch.no_grad()
def update_average(average: AveragedModel, network: nn.Module) -> None:
    """Take the network's weights into the average, and copy its buffers.

    What `AveragedModel.update_parameters` does from its second call on, but for sending its count of updates to the
    device: a GPU would be waited for.
    """
    assert average.multi_avg_fn is not None
    average.multi_avg_fn(list(average.module.parameters()), list(network.parameters()), average.n_averaged)
    for mine, theirs in zip(average.module.buffers(), network.buffers(), strict=True):
        mine.copy_(theirs)
    average.n_averaged += 1
