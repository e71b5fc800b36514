import multiprocessing
import threading
from types import SimpleNamespace

import pytest
import torch

from mambair.ops.cpu import workers


@pytest.fixture(params=["openmp", "pool"])
def team(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs the test on PyTorch's OpenMP threads and on the pool of Python threads."""
    if request.param == "pool":
        monkeypatch.setattr(workers, "_openmp_parallel", lambda: None)
    elif workers._openmp_parallel() is None:
        pytest.skip("this PyTorch has no OpenMP library with GOMP_parallel")
    return request.param


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_task_runs_once_and_workers_are_exclusive(team: str, count: int) -> None:
    done: list[int] = []
    busy = [threading.Lock() for _ in range(count)]

    def task(worker: int, number: int) -> None:
        assert busy[worker].acquire(blocking=False)
        done.append(number)
        busy[worker].release()

    workers.run_tasks(task, 100, count)
    assert sorted(done) == list(range(100))


def test_errors_of_tasks_are_raised(team: str) -> None:
    def task(worker: int, number: int) -> None:
        raise ArithmeticError(f"task {number}")

    with pytest.raises(ArithmeticError, match="task"):
        workers.run_tasks(task, 4, 2)


def test_tasks_run_from_several_threads_at_once(team: str) -> None:
    totals = [0] * 4

    def call(caller: int) -> None:
        done: list[int] = []
        for _ in range(20):
            workers.run_tasks(lambda worker, number: done.append(number), 5, 2)
        totals[caller] = sum(done)

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals == [200] * 4


def _run_on_pool_in_child(queue: multiprocessing.Queue) -> None:
    done: list[int] = []
    workers._run_on_pool(lambda worker: done.append(worker), 2)
    queue.put(0 in done)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_pool_works_in_a_forked_child() -> None:
    workers._run_on_pool(lambda worker: None, 2)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_run_on_pool_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60)
    child.join()


@pytest.mark.parametrize("units", [1, 3, 50])
def test_ranges_hold_every_unit_once(units: int) -> None:
    done: list[int] = []
    workers.run_ranges(lambda first, last: done.extend(range(first, last)), units, SimpleNamespace(overloads=[]))
    assert sorted(done) == list(range(units))


@pytest.mark.parametrize(
    ("threads", "batch", "blocks", "expected"),
    [
        (1, 1, 5, (1, 1)),  # nothing to divide
        (2, 2, 23, (1, 1)),  # the batch divides evenly
        (2, 1, 5, (2, 1)),  # five blocks do not halve, four directions do
        (2, 1, 64, (1, 2)),  # many blocks halve without a second sum
        (16, 1, 5, (4, 3)),  # two blocks at a time, which four parts would not change
    ],
)
def test_split_work(
    monkeypatch: pytest.MonkeyPatch, threads: int, batch: int, blocks: int, expected: tuple[int, int]
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    direction_parts, block_parts = workers.split_work(batch, 4, blocks)
    assert 4 % direction_parts == 0
    assert block_parts <= blocks
    assert (direction_parts, block_parts) == expected
