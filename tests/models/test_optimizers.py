import copy

import pytest
import torch
from torch import nn

from mambair.errors import UserError
from mambair.models.optimizers import ScheduledOptimizer


class ScanLike(nn.Module):
    """The parameter names that matter: some under weight decay between some that are not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.A_logs = nn.Parameter(torch.ones(4))
        self.Ds = nn.Parameter(torch.ones(5))
        self.last = nn.Linear(3, 1)


ADAMW = {"type": "AdamW", "lr": 0.1, "weight_decay": 0.5, "betas": [0.9, 0.99]}


def give_gradients(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_weight_decay_spares_the_scan() -> None:
    network = ScanLike()
    optimizer = ScheduledOptimizer(network, ADAMW, None)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer.optimizer.step()
    kept = {name for name, parameter in network.named_parameters() if torch.equal(parameter, before[name])}
    assert kept == {"A_logs", "Ds"}


def test_learning_rate_follows_the_schedule_in_every_group() -> None:
    optimizer = ScheduledOptimizer(ScanLike(), ADAMW, {"type": "MultiStepLR", "milestones": [2], "gamma": 0.5})
    assert [optimizer.set_iteration(iteration) for iteration in (0, 1, 2)] == [0.1, 0.1, 0.05]
    assert [group["lr"] for group in optimizer.optimizer.param_groups] == [0.05, 0.05]


def test_single_group_state_of_basicsr_continues_exactly() -> None:
    network, twin = ScanLike(), ScanLike()
    twin.load_state_dict(network.state_dict())
    ours = ScheduledOptimizer(network, ADAMW | {"weight_decay": 0.0}, None)
    theirs = torch.optim.AdamW(twin.parameters(), lr=0.1, weight_decay=0.0, betas=(0.9, 0.99))
    give_gradients(twin, seed=1)
    theirs.step()
    network.load_state_dict(twin.state_dict())
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    for module, step in ((network, ours.optimizer.step), (twin, theirs.step)):
        give_gradients(module, seed=2)
        step()
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters(), strict=True))


def test_settings_come_from_the_option_file_not_from_the_state() -> None:
    network = ScanLike()
    saved = ScheduledOptimizer(network, ADAMW, None)
    give_gradients(network, seed=1)
    saved.optimizer.step()
    resumed = ScheduledOptimizer(network, ADAMW | {"weight_decay": 0.25, "lr": 0.2}, None)
    resumed.load_state_dict(saved.state_dict())
    assert resumed.optimizer.param_groups[0]["weight_decay"] == 0.25
    assert resumed.optimizer.param_groups[0]["lr"] == 0.2
    first = next(iter(resumed.state_dict()["state"].values()))
    assert torch.equal(first["exp_avg"], saved.state_dict()["state"][0]["exp_avg"])


@pytest.mark.parametrize("other", [nn.Linear(2, 3), nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9), nn.Linear(9, 9))])
def test_state_of_another_network_is_refused(other: nn.Module) -> None:
    saved = ScheduledOptimizer(other, ADAMW, None)
    give_gradients(other, seed=1)
    saved.optimizer.step()
    with pytest.raises(UserError, match="resume with the option file that the run was started with"):
        ScheduledOptimizer(ScanLike(), ADAMW, None).load_state_dict(saved.state_dict())


@pytest.mark.parametrize(
    ("optim", "message"),
    [
        ({"type": "AdmW", "lr": 0.1}, "train: optim_g: unknown optimizer 'AdmW'; did you mean 'AdamW'"),
        ({"type": "Adam", "lr": 0.1, "beta": [0.9, 0.99]}, "unknown key 'beta' for Adam; did you mean 'betas'"),
        ({"type": "Adam"}, "key 'lr' is missing"),
        ({"type": "Adam", "lr": "fast"}, "train: optim_g: key 'lr' is 'fast': input should be a valid number"),
    ],
)
def test_bad_blocks_name_the_key(optim: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ScheduledOptimizer(ScanLike(), optim, None)
