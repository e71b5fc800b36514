import math

import pytest
import torch

from mambair.errors import UserError
from mambair.models.schedules import with_warmup
from mambair.registry import SCHEDULERS


def torch_rates(make_scheduler, iterations: int, base_lr: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=base_lr)
    scheduler = make_scheduler(optimizer)
    rates = []
    for _ in range(iterations):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def rates(options: dict, iterations: int, base_lr: float) -> list[float]:
    schedule = SCHEDULERS.build(options)
    return [schedule(iteration, base_lr) for iteration in range(iterations)]


def test_multi_step_equals_torch() -> None:
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [3, 7, 8], gamma=0.5), 12, 2e-4)
    assert rates({"type": "MultiStepLR", "milestones": [3, 7, 8], "gamma": 0.5}, 12, 2e-4) == pytest.approx(expected)


def test_cosine_equals_torch() -> None:
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10, eta_min=1e-6), 11, 3e-4)
    assert rates({"type": "TrueCosineAnnealingLR", "T_max": 10, "eta_min": 1e-6}, 11, 3e-4) == pytest.approx(expected)


def test_milestones_may_arrive_as_floats() -> None:
    assert rates({"type": "MultiStepLR", "milestones": [2.0], "gamma": 0.5}, 3, 1.0) == [1.0, 1.0, 0.5]


def test_real_denoising_recipe() -> None:
    schedule = SCHEDULERS.build(
        {
            "type": "CosineAnnealingRestartCyclicLR",
            "periods": [92000, 208000],
            "restart_weights": [1, 1],
            "eta_mins": [3e-4, 1e-6],
        }
    )
    assert {schedule(iteration, 3e-4) for iteration in (0, 1, 50_000, 92_000)} == {3e-4}
    assert schedule(92_001, 3e-4) < 3e-4
    assert schedule(92_000 + 104_000, 3e-4) == pytest.approx((3e-4 + 1e-6) / 2)
    assert schedule(300_000, 3e-4) == pytest.approx(1e-6)
    assert schedule(400_000, 3e-4) == pytest.approx(1e-6)


def test_restarts_and_their_weights() -> None:
    options = {"type": "CosineAnnealingRestartLR", "periods": [10, 10], "restart_weights": [1, 0.5], "eta_min": 0.0}
    values = rates(options, 21, 1.0)
    assert values[0] == 1.0
    assert values[10] == pytest.approx(0.0)
    assert values[11] == pytest.approx(0.5 * (1 + math.cos(math.pi / 10)) / 2)


def test_restart_lists_of_unequal_length_are_refused() -> None:
    with pytest.raises(UserError, match="one value per cycle, not 2, 1 and 2"):
        SCHEDULERS.build({"type": "CosineAnnealingRestartLR", "periods": [1, 2]})


def test_warmup_rises_from_the_first_step() -> None:
    schedule = with_warmup(SCHEDULERS.build({"type": "MultiStepLR", "milestones": [100]}), 4)
    assert [schedule(iteration, 1.0) for iteration in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert with_warmup(schedule, -1)(0, 1.0) == 0.25
