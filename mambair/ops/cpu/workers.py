"""Worker threads for compiled kernels, and how the work is divided among them.

Kernels release the interpreter's lock, so Python can run them side by side. They run on PyTorch's own OpenMP threads
where those can be reached: the threads of PyTorch's last operator spin for some milliseconds, waiting for the next, and
other threads would have to share the cores with them (measured on two cores: 2.4 ms instead of 1.2 ms for a scan of
64 x 64 pixels). Otherwise they run on a pool of Python threads. numba's own parallel loops do neither; moreover one of
its thread pools aborts when two Python threads use it at once, and the other when a process that used it forks.
"""

import ctypes
import functools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_OPENMP_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@functools.cache
def _openmp_parallel() -> Callable | None:
    """OpenMP's `GOMP_parallel` from the library that PyTorch uses; None where there is none.

    GCC's and LLVM's libraries both have it. Looked up through PyTorch's own library: the process may hold others.
    """
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if not path.exists():
        return None
    try:
        parallel = ctypes.CDLL(str(path)).GOMP_parallel
    except (OSError, AttributeError):
        return None
    parallel.argtypes = (_OPENMP_FUNCTION, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    parallel.restype = None
    return parallel


def _run_on_openmp(work: Callable[[int], None], workers: int) -> None:
    """Call work(0) ... work(workers - 1), each on a thread of PyTorch's OpenMP team."""
    numbers = iter(range(workers))
    errors = []

    def member(_: int | None) -> None:
        # OpenMP may grant fewer threads than asked for: each takes worker numbers until there are none left.
        try:
            for number in numbers:
                work(number)
        except BaseException as error:  # nothing may propagate into OpenMP's C code; raised again below
            errors.append(error)

    parallel = _openmp_parallel()
    assert parallel is not None, "asked for before"
    parallel(_OPENMP_FUNCTION(member), None, workers, 0)
    if errors:
        raise errors[0]


@functools.cache
def _pool(size: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(size, thread_name_prefix="mambair-scan")


# The threads of a pool do not survive a fork, and a pool without its threads would wait forever.
if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _run_on_pool(work: Callable[[int], None], workers: int) -> None:
    """Call work(0) here and work(1) ... work(workers - 1) on Python threads."""
    helpers = [_pool(workers - 1).submit(work, worker) for worker in range(1, workers)]
    work(0)
    for helper in helpers:
        # A helper that has not begun by now, because other callers keep the pool busy, has nothing left to do.
        if not helper.cancel():
            helper.result()


def run_tasks(task: Callable[[int, int], None], tasks: int, workers: int) -> None:
    """Call task(worker, number) for each number below `tasks`; calls with the same worker follow one another.

    Workers take the next task when they are done with one, so that a core busy with something else delays no other.
    """
    numbers = iter(range(tasks))

    def work(worker: int) -> None:
        for number in numbers:
            task(worker, number)

    if workers == 1:
        work(0)
    elif _openmp_parallel() is not None:
        _run_on_openmp(work, workers)
    else:
        _run_on_pool(work, workers)


def worker_count(tasks: int, kernel: Any) -> int:
    """How many threads to use for so many tasks: PyTorch's own number (`torch.set_num_threads`), or fewer.

    One while the kernel is not compiled yet: the compiler runs in the calling thread then, since others may have
    less of a stack than it needs. (`overloads`: a dictionary; lists of its signatures hash every type in them anew.)
    """
    return min(torch.get_num_threads(), tasks) if kernel.overloads else 1


def run_ranges(task: Callable[[int, int], None], units: int, kernel: Any) -> None:
    """Call task(first, last) for ranges that together hold all units, one for each thread.

    For units of work that are so short that starting a kernel for each, 8 us with the interpreter's lock, would count.
    So would a second range for each thread: a forward pass of the light network takes 260 ms with two and 249 with one.
    """
    tasks = min(units, torch.get_num_threads())
    run_tasks(
        lambda _, number: task(number * units // tasks, (number + 1) * units // tasks),
        tasks,
        worker_count(tasks, kernel),
    )


def sum_parts(parts: Tensor) -> Tensor:
    """Sum over the first dimension, without a copy if there is only one part."""
    return parts[0] if parts.shape[0] == 1 else parts.sum(dim=0)


def _divisors(number: int) -> list[int]:
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


def split_work(independent: int, directions: int, blocks: int) -> tuple[int, int]:
    """(parts of the directions, parts of the channel blocks) so that all threads have equal work.

    `independent` counts what can run in parallel anyway (the batch). Every part of the directions costs a
    sum of its own, every part of the channels a share of the work that all channels of a pixel have in common; the
    two weights are those costs relative to the scan of one block of channels.
    """
    threads = torch.get_num_threads()
    cost_of_sum, cost_in_common = 0.1, 0.5

    def cost(parts: tuple[int, int]) -> float:
        direction_parts, block_parts = parts
        rounds = math.ceil(independent * direction_parts * block_parts / threads)
        scans = (directions // direction_parts) * (math.ceil(blocks / block_parts) + cost_in_common)
        return rounds * scans + cost_of_sum * (direction_parts - 1) * independent * blocks / threads

    return min(
        ((first, second) for first in _divisors(directions) for second in range(1, min(blocks, threads) + 1)), key=cost
    )
