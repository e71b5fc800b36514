"""The two-dimensional scan alone on a GPU: time, memory and floors, and how the cost grows with the image."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks import timing
from benchmarks.roofline import DIRECTIONS, Gpu, ScanCase, floors
from benchmarks.tables import Settings, Table
from benchmarks.timing import Budget, Row, Work
from mambair.ops import available_backends, ss2d_scan

FORWARD, BOTH = "forward", "fwd + bwd"
BACKENDS = ("triton", "mamba_ssm")
FLOORS = ("bytes ms", "exponentials ms", "products ms", "arithmetic ms")
COLUMNS = (
    "ms",
    "in a graph ms",
    "at most ms",
    "MiB above inputs",
    "MiB in all",
    "at most MiB",
    "clock MHz",
    *FLOORS,
    "time/floor",
)

# Sizes of the project's classic and light networks (E, N, R), with the limits that it set itself.
CLASSIC = (360, 16, 12)
LIGHT = (72, 10, 4)
SMALLER, LARGER = "classic 1 x 256x256", "classic 1 x 512x512"
AT_MOST_GROWTH = 4.4

NOTE = (
    "Medians of CUDA events. ms: called one after the other; in a graph: replayed, that is without the time to launch. "
    "Memory: above what lay there before the call (inputs and the libraries' workspaces), and in all. Floors: bytes, x "
    "and y once forward, x and two gradients once more backward, over the bandwidth measured by a large copy; "
    "exponentials, one for each state in two passes forward and two more backward, at 16 per clock and multiprocessor; "
    "products, the projections at the rate of a large matrix product; arithmetic, the usual 9 operations for each "
    "state on the float32 lanes; the clock is read during the work. time/floor: shorter time over the largest floor."
)


def time_scans(settings: Settings, budget: Budget) -> Iterator[Table]:
    """The tables of all cases, passes and backends, of the rates behind the floors, and of growth."""
    reasons = available_backends(timing.DEVICE)
    backends = [name for name in BACKENDS if reasons[name] is None]
    missing = "".join(f" Without {name}: {reasons[name]}." for name in BACKENDS if name not in backends)
    gpu = Gpu(settings.repeats)
    rows = []
    for case in _cases(settings.quick):
        for backend in backends:
            for label in (FORWARD, BOTH):
                labels: Row = {"scan": case.name, "type": timing.name_of(case.dtype), "backend": backend, "pass": label}
                measure = partial(_measure, case, backend, label, gpu, settings.repeats)
                rows.append(timing.measure_row(labels, COLUMNS, measure, budget))
    yield Table("Scans on the GPU", rows, NOTE + missing)
    yield Table("Rates of the GPU", [gpu.rates()], "Measured by a large copy and by large matrix products.")
    growth = growth_rows(rows)
    if growth:
        yield Table("Growth of the scan's cost", growth, "Four times the pixels.")


def _cases(quick: bool) -> tuple[ScanCase, ...]:
    half = timing.half_type()
    if quick:
        return (ScanCase("classic 1 x 16x16", 1, 16, 16, *CLASSIC, half),)
    limits = {FORWARD: 0.5, BOTH: 1.8}
    return (
        ScanCase("classic 4 x 64x64", 4, 64, 64, *CLASSIC, half, limits, at_most_mebibytes=200),
        ScanCase(SMALLER, 1, 256, 256, *CLASSIC, half, {FORWARD: 1.7}),
        ScanCase("light 16 x 64x64", 16, 64, 64, *LIGHT, half),
        ScanCase("classic 4 x 64x64", 4, 64, 64, *CLASSIC, torch.float32),
        ScanCase(LARGER, 1, 512, 512, *CLASSIC, half),
    )


def _measure(case: ScanCase, backend: str, label: str, gpu: Gpu, repeats: int, figures: Row) -> None:
    backward = label == BOTH
    if backend == "triton":
        figures["at most ms"] = case.at_most.get(label)
        figures["at most MiB"] = case.at_most_mebibytes if backward else None
    work = _make_work(scan_inputs(case), backend, backward)
    figures["ms"] = timing.milliseconds(work, repeats)
    figures["MiB above inputs"], figures["MiB in all"] = timing.peak_mebibytes(work)
    figures["clock MHz"] = timing.clock_under(work)
    figures.update(floors(case, backward, gpu, figures["clock MHz"]))
    figures["time/floor"] = _time_over_floor(figures)
    replay, _ = timing.capture(work)
    figures["in a graph ms"] = timing.milliseconds(replay, repeats)
    figures["time/floor"] = _time_over_floor(figures)


def _time_over_floor(figures: Row) -> float:
    times = [figures[key] for key in ("ms", "in a graph ms") if figures[key] is not None]
    return min(times) / max(figures[key] for key in FLOORS if figures[key] is not None)


def scan_inputs(case: ScanCase) -> dict[str, Tensor]:
    """Arguments of ss2d_scan with gradients; parameters in float32, as networks keep them."""
    generator = torch.Generator(timing.DEVICE).manual_seed(0)
    channels, states, rank = case.channels, case.states, case.rank

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=timing.DEVICE)

    inputs = {
        "x": normal(case.batch, case.height, case.width, channels).to(case.dtype),
        "x_proj_weight": normal(DIRECTIONS, rank + 2 * states, channels) / channels**0.5,
        "dt_projs_weight": normal(DIRECTIONS, channels, rank) / rank**0.5,
        "dt_projs_bias": normal(DIRECTIONS, channels) - 4.0,
        "A_logs": torch.arange(1.0, states + 1, device=timing.DEVICE).log().repeat(DIRECTIONS * channels, 1),
        "Ds": torch.ones(DIRECTIONS * channels, device=timing.DEVICE),
    }
    return {name: value.requires_grad_() for name, value in inputs.items()}


def _make_work(inputs: dict[str, Tensor], backend: str, backward: bool) -> Work:
    gradient = torch.ones_like(inputs["x"])

    def forward() -> None:
        with torch.no_grad():
            ss2d_scan(**inputs, backend=backend)

    def both() -> None:
        torch.autograd.grad(ss2d_scan(**inputs, backend=backend), list(inputs.values()), gradient)

    return both if backward else forward


def growth_rows(rows: list[Row]) -> list[Row]:
    """How much longer the larger image takes, for each backend and pass measured at both sizes."""
    times = {(row["scan"], row["backend"], row["pass"]): row["ms"] for row in rows if row["ms"] is not None}
    return [
        {
            "backend": backend,
            "pass": label,
            "256x256 ms": smaller,
            "512x512 ms": times[LARGER, backend, label],
            "ratio": times[LARGER, backend, label] / smaller,
            "at most": AT_MOST_GROWTH if backend == "triton" else None,
        }
        for (name, backend, label), smaller in times.items()
        if name == SMALLER and (LARGER, backend, label) in times
    ]
