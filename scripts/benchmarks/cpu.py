"""The CPU section: the scans alone, their memory, and the light network beside SwinIR-light."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing.queues import Queue
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.networks import (
    V2_LIGHT,
    build_mambair_light,
    build_swinir_light,
    make_forward,
    make_forward_backward,
)
from benchmarks.tables import Settings, Table, Value
from mambair.archs import build_network
from mambair.ops import selective_scan, ss2d_scan
from mambair.runtime.freed_memory import keep_freed_memory

DIRECTIONS = 4
NANO = 1e9
MILLI = 1e3
MEGABYTE = 1e6

# The project's limits.
LIMIT_NS_PER_UPDATE = 1.0
LIMIT_BACKWARD_MEMORY = 3.0
LIMIT_FORWARD_SECONDS = 0.65
LIMIT_FORWARD_BACKWARD_SECONDS = 2.0


def measure(*works: Callable[[], None], repeats: int) -> list[float]:
    """Median seconds of each work after one warm-up; the works take turns, so that a busy moment hits all of them."""
    times: list[list[float]] = [[] for _ in works]
    for work in works:
        work()
    for _ in range(repeats):
        for work, seconds in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]


def run_cpu(settings: Settings) -> Iterator[Table]:
    """All tables of this section."""
    torch.set_num_threads(settings.threads)
    yield _time_scans(settings)
    yield _measure_memory(settings)
    yield _time_networks(settings, "freed memory given back, as Python scripts do")
    keep_freed_memory()
    yield _time_networks(settings, "freed memory kept, as mambair restore and mambair train do")


def selective_scan_inputs(channels: int, length: int, states: int = 16) -> dict[str, Tensor]:
    """Arguments of selective_scan for a batch of one and one group per direction."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "u": normal(1, channels, length),
        "delta": 0.5 * normal(1, channels, length) - 4.0,
        "A": -torch.arange(1.0, states + 1).repeat(channels, 1),
        "B": normal(1, DIRECTIONS, states, length),
        "C": normal(1, DIRECTIONS, states, length),
        "D": torch.ones(channels),
    }


def ss2d_inputs(size: int, channels: int, states: int, rank: int) -> dict[str, Tensor]:
    """Arguments of ss2d_scan for one image of size x size pixels."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "x": normal(1, size, size, channels),
        "x_proj_weight": normal(DIRECTIONS, rank + 2 * states, channels) / channels**0.5,
        "dt_projs_weight": normal(DIRECTIONS, channels, rank) / rank**0.5,
        "dt_projs_bias": normal(DIRECTIONS, channels) - 4.0,
        "A_logs": torch.arange(1.0, states + 1).log().repeat(DIRECTIONS * channels, 1),
        "Ds": torch.ones(DIRECTIONS * channels),
    }


def _make_scan_works(
    scan: Callable[..., Tensor], inputs: dict[str, Tensor]
) -> tuple[Callable[[], None], Callable[[], None]]:
    """(forward without gradients, forward and backward with all gradients)."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}

    def forward() -> None:
        with torch.no_grad():
            scan(**inputs)

    def forward_backward() -> None:
        y = scan(**leaves)
        torch.autograd.grad(y, list(leaves.values()), torch.ones_like(y))

    return forward, forward_backward


def _scan_1d(**inputs: Tensor) -> Tensor:
    return selective_scan(**inputs, delta_softplus=True, backend="numba")


def _scan_2d(**inputs: Tensor) -> Tensor:
    return ss2d_scan(**inputs, backend="numba")


def _time_scans(settings: Settings) -> Table:
    length, size = (256, 16) if settings.quick else (4096, 64)
    cases = (
        ("1-D", f"(1, 4*360, {length}), N 16", 4 * 360 * length * 16, _scan_1d, selective_scan_inputs(4 * 360, length)),
        ("2-D", f"(1, {size}, {size}, 360), N 16", 4 * 360 * size**2 * 16, _scan_2d, ss2d_inputs(size, 360, 16, 12)),
        ("2-D", f"(1, {size}, {size}, 72), N 10", 4 * 72 * size**2 * 10, _scan_2d, ss2d_inputs(size, 72, 10, 4)),
    )
    rows: list[dict[str, Value]] = []
    for kind, shape, updates, scan, inputs in cases:
        for label, work in zip(("forward", "fwd + bwd"), _make_scan_works(scan, inputs), strict=True):
            (seconds,) = measure(work, repeats=settings.repeats)
            rows.append(
                {
                    "scan": kind,
                    "size": shape,
                    "pass": label,
                    "ms": seconds * MILLI,
                    "ns/update": seconds / updates * NANO,
                    "at most": LIMIT_NS_PER_UPDATE if (kind, label) == ("1-D", "forward") else None,
                }
            )
    note = (
        f"backend numba, float32, {settings.threads} threads, median of {settings.repeats}; an update is one state of "
        "one channel at one pixel; 2-D: four directions, with their projections"
    )
    return Table("Scans on the CPU", rows, note)


def _resident_and_peak() -> tuple[float, float]:
    """This process's resident memory now and its peak, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    sizes = dict(line.split(":", 1) for line in lines)
    return int(sizes["VmRSS"].split()[0]) * 1024, int(sizes["VmHWM"].split()[0]) * 1024


def _measure_backward(results: Queue, kind: str, inputs: dict[str, Tensor], threads: int) -> None:
    """Put the growth of this (fresh) process's memory during one backward pass, in bytes."""
    torch.set_num_threads(threads)
    scan = _scan_1d if kind == "1-D" else _scan_2d
    small = selective_scan_inputs(8, 4) if kind == "1-D" else ss2d_inputs(2, 8, 4, 1)
    _make_scan_works(scan, small)[1]()  # loads and compiles the kernels
    leaves = {key: tensor.requires_grad_() for key, tensor in inputs.items()}
    y = scan(**leaves)
    gradient = torch.ones_like(y)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # sets the peak back to what is resident now
    before, _ = _resident_and_peak()
    gradients = torch.autograd.grad(y, list(leaves.values()), gradient)
    results.put((_resident_and_peak()[1] - before, sum(tensor.nbytes for tensor in gradients)))


def _measure_memory(settings: Settings) -> Table:
    if not Path("/proc/self/clear_refs").exists():
        row: dict[str, Value] = {"scan": "not measured: this system does not tell a process its peak"}
        return Table("Memory of the backward pass", [row])
    length, size = (256, 16) if settings.quick else (4096, 64)
    cases = (
        ("1-D", f"(1, 4*360, {length}), N 16", "u", selective_scan_inputs(4 * 360, length)),
        ("2-D", f"(1, {size}, {size}, 360), N 16", "x", ss2d_inputs(size, 360, 16, 12)),
    )
    context = multiprocessing.get_context("spawn")
    rows: list[dict[str, Value]] = []
    for kind, shape, main_input, inputs in cases:
        results = context.Queue()
        child = context.Process(target=_measure_backward, args=(results, kind, inputs, settings.threads))
        child.start()
        peak, of_gradients = results.get()
        child.join()
        input_bytes = inputs[main_input].nbytes
        rows.append(
            {
                "scan": kind,
                "size": shape,
                "input MB": input_bytes / MEGABYTE,
                "peak MB": peak / MEGABYTE,
                "gradients MB": of_gradients / MEGABYTE,
                "peak/input": peak / input_bytes,
                "at most": LIMIT_BACKWARD_MEMORY if kind == "1-D" else None,
            }
        )
    note = (
        "backend numba, float32; peak: growth of resident memory during the backward pass, in a fresh process, "
        "with the gradients that it returns; input: u or x"
    )
    return Table("Memory of the backward pass", rows, note)


def _time_networks(settings: Settings, memory: str) -> Table:
    size = 16 if settings.quick else 64
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    networks = (build_mambair_light(), build_network(V2_LIGHT), build_swinir_light())
    rows: list[dict[str, Value]] = []
    for label, make, limit in (
        ("forward", make_forward, LIMIT_FORWARD_SECONDS),
        ("fwd + bwd", make_forward_backward, LIMIT_FORWARD_BACKWARD_SECONDS),
    ):
        works = [make(network, image) for network in networks]
        ours, version_2, theirs = measure(*works, repeats=settings.repeats)
        rows.append(
            {
                "pass": label,
                "MambaIR-light s": ours,
                "at most": limit,
                "MambaIRv2-light s": version_2,
                "SwinIR-light s": theirs,
                "ratio to SwinIR": ours / theirs,
                "ratio of v2": version_2 / theirs,
            }
        )
    note = f"float32, {settings.threads} threads, median of {settings.repeats}, the networks in turn; {memory}"
    return Table(f"Light x2 networks, one {size} x {size} input, {memory.split(',')[0]}", rows, note)
