"""Processes that train together: start, collectives, and the end.

The helpers work in a single process too, so that callers need not ask how many there are.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from mambair.errors import UserError
from mambair.runtime.failure_watch import FailureWatch, describe_failure, is_lost_peer

logger = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_PORT = 29500
DEFAULT_TIMEOUT = 1800.0


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those of the run."""

    rank: int = 0
    """Index over all machines."""
    world_size: int = 1
    """Processes in all."""
    local_rank: int = 0
    """Index on this machine: which of its GPUs to take."""


_watch: FailureWatch | None = None


def init_distributed(
    launcher: str = "none",
    backend: str = "nccl",
    *,
    port: int = DEFAULT_PORT,
    timeout: float = DEFAULT_TIMEOUT,
    local_rank: int = 0,
) -> ProcessGroup:
    """Join the processes that `launcher` ('none', 'pytorch' or 'slurm') started.

    `backend` serves tensors on GPUs; tensors on the CPU, and runs without CUDA, always use gloo. `port` is for SLURM,
    which sets none; `timeout` in seconds bounds every wait for another process; `local_rank` is what an old launcher
    passed as an argument. Raises UserError where the launcher's environment is missing or contradicts `launcher`.
    """
    global _watch
    if launcher == "none":
        return _single_process()
    if launcher == "pytorch":
        environment = _torchrun_environment(os.environ, local_rank)
    elif launcher == "slurm":
        environment = slurm_environment(os.environ, port)
    else:
        raise UserError(f"--launcher: expected none, pytorch or slurm, got '{launcher}'")
    os.environ.update(environment)
    group = ProcessGroup(*(int(environment[key]) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    store, rank, world_size = _meet(group, backend, timeout)
    if world_size > 1:
        _watch = FailureWatch(store, rank)
        _watch.start()
    return group


def _meet(group: ProcessGroup, backend: str, timeout: float) -> tuple[dist.Store, int, int]:
    """Make the process group of those that come within `timeout` seconds; returns its store, and rank and count."""
    limit = timedelta(seconds=timeout)
    try:
        store, rank, world_size = next(dist.rendezvous("env://", group.rank, group.world_size, timeout=limit))
        # torchrun's store outlives the processes that it restarts, with all that they left there.
        store = dist.PrefixStore(f"start_{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        backends = f"cpu:gloo,cuda:{backend}" if torch.cuda.is_available() else "gloo"
        shared = dist.PrefixStore("process_group", store)
        dist.init_process_group(backends, store=shared, rank=rank, world_size=world_size, timeout=limit)
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        meeting = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(
            f"--launcher: the {group.world_size} processes did not all meet at {meeting} within {timeout:g} s "
            f"({str(error).splitlines()[0][:120]}); start all of them, or raise dist_params.timeout"
        ) from error
    return store, rank, world_size


def _single_process() -> ProcessGroup:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError("--launcher: torchrun started several processes; add --launcher pytorch")
    return ProcessGroup()


def _torchrun_environment(environment: Mapping[str, str], local_rank: int) -> dict[str, str]:
    """The variables torchrun sets, checked."""
    keys = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    missing = [key for key in keys if key not in environment]
    if missing:
        raise UserError(
            f"--launcher pytorch: {', '.join(missing)} not set; start with "
            "torchrun --nproc_per_node=N mambair/train.py -opt FILE --launcher pytorch"
        )
    return {key: environment[key] for key in keys} | {"LOCAL_RANK": environment.get("LOCAL_RANK", str(local_rank))}


def slurm_environment(environment: Mapping[str, str], port: int = DEFAULT_PORT) -> dict[str, str]:
    """torchrun's variables from those of `srun`: rank, counts, and the first node of the step as the meeting place.

    MASTER_ADDR and MASTER_PORT are kept if they are set already.
    """
    keys = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    missing = [key for key in keys if key not in environment]
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST")
    if missing or not nodes:
        names = ", ".join(missing or ["SLURM_NODELIST"])
        raise UserError(f"--launcher slurm: {names} not set; start with srun, one task per GPU")
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_NTASKS"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "MASTER_ADDR": environment.get("MASTER_ADDR") or first_host(nodes),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(port),
    }


def first_host(nodes: str) -> str:
    """The first host of SLURM's list notation: 'gpu[003-005,9],cpu1' -> 'gpu003'.

    Read here rather than by `scontrol show hostnames`, which containers often lack.
    """
    first = re.match(r"(?:[^,\[\]]|\[[^\[\]]*\])*", nodes)
    assert first is not None  # the pattern matches the empty string
    host = re.sub(r"\[([^\]\-,]*)[^\]]*\]", r"\1", first.group())
    if not host:
        raise UserError(f"--launcher slurm: no host name in SLURM_NODELIST '{nodes}'; set MASTER_ADDR")
    return host


def is_main_process() -> bool:
    """Whether this is rank 0, which alone writes files and logs."""
    return not dist.is_initialized() or dist.get_rank() == 0


def barrier() -> None:
    """Wait until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def all_gather_object(value: T) -> list[T]:
    """The values of all processes, by rank; they must pickle."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def from_first_process(make: Callable[[], T]) -> T:
    """What `make` returns on the first process, on every process; the others do not call it."""
    value = make() if is_main_process() else None
    found = broadcast_object(value)
    return cast(T, found)


def broadcast_object(value: T) -> T:
    """Rank 0's value, on every process; other ranks may pass anything."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def reduce_mean(values: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Mean over the processes of each scalar tensor; all processes must pass the same keys."""
    keys = sorted(values)
    # One transfer and one collective for all of them; float64 keeps the sum exact enough to compare runs.
    stacked = torch.stack([values[key].detach().double().mean() for key in keys]).cpu() if keys else torch.empty(0)
    if dist.is_initialized() and keys:
        dist.all_reduce(stacked)
        stacked /= dist.get_world_size()
    means = dict(zip(keys, stacked.tolist(), strict=True))
    return {key: means[key] for key in values}


@contextmanager
def ending_together() -> Iterator[None]:
    """Within this block, an exception in one process ends all of them, and rank 0 prints the first cause.

    Launchers do the same for a process that ends, but not while it hangs in its own clean-up, and srun only with
    --kill-on-bad-exit. A SystemExit of code 0 is no failure. A process that is gone without a word (killed) shows in
    the others as a broken connection: they exit with 1 and one line.
    """
    try:
        yield
    except BaseException as error:
        if _watch is None or (isinstance(error, SystemExit) and not error.code):
            raise
        _watch.announce(error)
        if is_lost_peer(error):
            logger.error(describe_failure(error))
            raise SystemExit(1) from error
        raise


def shutdown() -> None:
    """Leave the process group, once all processes are here. Does nothing in a single process.

    After a failure do not call it: the others never come, and the launcher or `ending_together` ends them.
    """
    global _watch
    if not dist.is_initialized():
        return
    dist.barrier()
    if _watch is not None:
        _watch.stop()
    dist.barrier()  # nobody takes the store down while another still watches it
    _watch = None
    dist.destroy_process_group()
