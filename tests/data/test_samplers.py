"""Which draws make up which step: whatever the number of processes, and wherever the run was resumed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mambair.data.samplers import BatchPlan, DrawSampler, DrawSchedule, Stage, plan_batch
from mambair.errors import UserError


def test_plans_keep_the_total_batch_and_say_so() -> None:
    assert str(plan_batch(32, 2, 4)) == "total batch 32 = 2 processes x 4 x 4 accumulation steps"
    assert str(plan_batch(32, 8, 4)) == "total batch 32 = 8 processes x 4 x 1 accumulation step"
    assert plan_batch(32, 1, 32) == BatchPlan(32, 1, 32, 1)
    assert plan_batch(32, 16, 4) == BatchPlan(32, 16, 2, 1)
    assert plan_batch(12, 1, 5) == BatchPlan(12, 1, 4, 3)


def test_shares_that_are_not_equal_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"x\.yml:3: the total batch of 32 cannot be shared by 3 processes; start 1, 2, 4, 8"
    ):
        plan_batch(32, 3, 4, "x.yml:3")


@given(st.integers(1, 96), st.integers(1, 16), st.integers(1, 40))
def test_every_plan_adds_up(total: int, world_size: int, largest: int) -> None:
    if total % world_size:
        with pytest.raises(UserError):
            plan_batch(total, world_size, largest)
        return
    plan = plan_batch(total, world_size, largest)
    assert plan.world_size * plan.micro_batch * plan.accumulate == total
    assert plan.micro_batch <= largest


def progressive(world_size: int) -> DrawSchedule:
    """3 steps of 8 draws of 16 pixels, 2 of 4 of 24 pixels, then 4 of 32."""
    return DrawSchedule(
        [
            Stage(0, plan_batch(8, world_size, 2), 16),
            Stage(3, plan_batch(4, world_size, 1), 24),
            Stage(5, plan_batch(4, world_size, 4), 32),
        ]
    )


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_each_step_has_its_own_consecutive_draws(world_size: int) -> None:
    schedule = progressive(world_size)
    following = 0
    for iteration in range(9):
        plan = schedule.stage_at(iteration).plan
        batches = [schedule.micro_batches(iteration, rank) for rank in range(world_size)]
        assert all(len(own) == plan.accumulate for own in batches)
        assert all(len(batch) == plan.micro_batch for own in batches for batch in own)
        draws = sorted(draw for own in batches for batch in own for draw in batch)
        assert schedule.first_draw(iteration) == following
        assert [draw.number for draw in draws] == list(range(following, following + plan.total_batch))
        assert {draw.gt_size for draw in draws} == {16 if iteration < 3 else 24 if iteration < 5 else 32}
        following += plan.total_batch
    assert following == 3 * 8 + 2 * 4 + 4 * 4


def test_a_resumed_sampler_goes_on_where_the_first_one_was() -> None:
    schedule = progressive(2)
    whole = list(DrawSampler(schedule, 1, 0, 9))
    for start in range(10):
        done = sum(schedule.stage_at(iteration).plan.accumulate for iteration in range(start))
        assert list(DrawSampler(schedule, 1, start, 9)) == whole[done:]
