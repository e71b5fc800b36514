"""Whole networks on a GPU, training and inference, run in several ways, beside SwinIR and the published formulation."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise

import torch
from torch import nn

from benchmarks import timing
from benchmarks.gpu_scans import AT_MOST_GROWTH
from benchmarks.jobs import (
    AS_IT_COMES,
    BOTH,
    COMPILED,
    GRAPH,
    GROWING,
    HALF,
    OURS,
    PUBLISHED,
    SWINIR,
    SWINIR_SIZED,
    TF32,
    Contender,
    Job,
    inference_jobs,
    plain_inference_jobs,
    plain_training_jobs,
    training_jobs,
    v2_inference_jobs,
    v2_training_jobs,
)
from benchmarks.tables import Settings, Table
from benchmarks.timing import Budget, Row, Work
from mambair.archs import RestorationNetwork
from mambair.losses import L1Loss
from mambair.models.optimizers import parameter_groups
from mambair.ops import available_backends
from mambair.ops.backends import ENVIRONMENT_VARIABLE

COLUMNS = ("ms", "at most ms", "peak MiB", "at most MiB", "first call s")
SLOW_REPEATS = 3
"""Measurements of work that takes seconds, after one warm-up."""
QUICK_SIDE = 16

MakeWork = Callable[[nn.Module, Job, bool], Work]


def time_training(settings: Settings, budget: Budget, jobs: tuple[Job, ...] | None = None) -> Iterator[Table]:
    """The table of training steps, and the best way of each network."""
    note = (
        "Medians of CUDA events; a row per way. A step is the trainer's without its checks of the numbers: autocast, "
        "L1 loss, backward, fused Adam, gradients set to none. compiled: network.compile(), block by block for MambaIR "
        "and whole for SwinIR; the first call compiles. fp32, TF32: TF32 in matrix products and convolutions, not in "
        "the recurrence of the scan; fp32: PyTorch's default, TF32 in convolutions only."
    )
    return _time_jobs("Training step on the GPU", jobs or training_jobs(), _make_step, note, settings, budget)


def time_inference(settings: Settings, budget: Budget, jobs: tuple[Job, ...] | None = None) -> Iterator[Table]:
    """The table of restored images, the best way of each network, and how the cost grows with the image."""
    note = (
        "Medians of CUDA events; a row per way. SwinIR makes the masks of its windows anew in each pass unless it was "
        "built for images of this size (masks kept)."
    )
    jobs = jobs or inference_jobs()
    measured, best = _time_jobs("Inference on the GPU", jobs, _make_restoration, note, settings, budget)
    yield from (measured, best)
    growth = [] if settings.quick else growth_rows(measured.rows)
    if growth:
        yield Table("Growth of the network's cost", growth, "Four times the pixels; not compiled.")


def time_v2(settings: Settings, budget: Budget) -> Iterator[Table]:
    """The tables of MambaIRv2, and how it compares with the published code."""
    training, inference = v2_training_jobs(), v2_inference_jobs()
    rows = []
    for table in chain(time_training(settings, budget, training), time_inference(settings, budget, inference)):
        rows += table.rows
        yield table
    if not settings.quick:
        note = (
            "published: the published code with mamba-ssm's CUDA scan, eagerly, on one H200 in an earlier run. ratio: "
            "MambaIRv2's time over its. as it comes: peak MiB with what its graphs hold."
        )
        yield Table("MambaIRv2 beside the published code", published_rows((*training, *inference), rows), note)


def time_plain(settings: Settings, budget: Budget) -> Iterator[Table]:
    """The tables of networks as plain modules, in inference and in training."""
    note = (
        "Medians of CUDA events, of networks as most people run them. as it comes: built and called, after the passes "
        "that its graphs wait for, peak MiB with what they hold; eager: with replays_graphs and replays_steps off."
    )
    for title, jobs, make_work in (
        ("Plain modules: inference on the GPU", plain_inference_jobs(), _make_restoration),
        ("Plain modules: training step on the GPU", plain_training_jobs(), _make_step),
    ):
        yield from _time_jobs(title, jobs, make_work, note, settings, budget)


def _time_jobs(
    title: str,
    jobs: tuple[Job, ...],
    make_work: MakeWork,
    note: str,
    settings: Settings,
    budget: Budget,
) -> Iterator[Table]:
    reasons = available_backends(timing.DEVICE)
    if reasons["mamba_ssm"] is not None:
        note += f" Without the published scan: {reasons['mamba_ssm']}."
    rows = []
    for job in (_shrink(job) for job in jobs) if settings.quick else jobs:
        for contender in job.contenders:
            if contender.name == PUBLISHED and reasons["mamba_ssm"] is not None:
                continue
            torch.compiler.reset()  # code compiled for another network only fills the cache
            for way in contender.ways:
                labels: Row = {
                    "work": job.name,
                    "type": _type_name(job.precision),
                    "network": contender.name,
                    "way": way,
                }
                measure = partial(_measure, job, contender, way, make_work, settings)
                rows.append(timing.measure_row(labels, COLUMNS, measure, budget))
    yield Table(title, rows, note)
    yield Table(f"{title}: the best way of each", best_rows(rows), "ratio: MambaIR's time over the other's.")


def _shrink(job: Job) -> Job:
    return replace(job, shape=(1, job.shape[1], QUICK_SIDE, QUICK_SIDE))


def _measure(
    job: Job,
    contender: Contender,
    way: str,
    make_work: MakeWork,
    settings: Settings,
    figures: Row,
) -> None:
    if contender.name == OURS:
        figures["at most ms"], figures["at most MiB"] = job.at_most_ms, job.at_most_mebibytes
    repeats, warm_ups = (SLOW_REPEATS, 0) if job.slow else (settings.repeats, timing.WARM_UPS)
    with _conditions(job.precision, contender.backend):
        network = contender.build().to(timing.DEVICE)
        if way != AS_IT_COMES and isinstance(network, RestorationNetwork):
            network.replays_graphs = network.replays_steps = False
        if way in (COMPILED, BOTH):
            network.compile()
        graph = way in (GRAPH, BOTH)
        work = make_work(network, job, graph)
        if graph:
            work, figures["peak MiB"] = timing.capture(work)
            figures["ms"] = timing.milliseconds(work, repeats, warm_ups)
        else:
            figures["first call s"] = timing.seconds_of(work)
            figures["ms"] = timing.milliseconds(work, repeats, warm_ups)
            peak = timing.reserved_mebibytes(work) if way == AS_IT_COMES else timing.peak_mebibytes(work)[1]
            figures["peak MiB"] = peak


@contextmanager
def _conditions(precision: str, backend: str | None) -> Iterator[None]:
    """Within this block scans run on `backend`, and float32 products are in TF32 if `precision` says so."""
    scan, products = os.environ.get(ENVIRONMENT_VARIABLE), torch.get_float32_matmul_precision()
    try:
        if backend is not None:
            os.environ[ENVIRONMENT_VARIABLE] = backend
        torch.set_float32_matmul_precision("high" if precision == TF32 else "highest")
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        if scan is not None:
            os.environ[ENVIRONMENT_VARIABLE] = scan
        else:
            os.environ.pop(ENVIRONMENT_VARIABLE, None)


def _type_name(precision: str) -> str:
    return timing.name_of(timing.half_type()) if precision == HALF else precision


def _autocast(precision: str) -> torch.autocast:
    return torch.autocast(timing.DEVICE, timing.half_type(), enabled=precision == HALF)


def _make_step(network: nn.Module, job: Job, graph: bool) -> Work:
    """One step of the trainer on a fixed batch; `graph`: with an optimizer whose steps can be captured."""
    network.train()
    groups = parameter_groups(network)
    optimizer = torch.optim.Adam(groups, lr=2e-4, betas=(0.9, 0.99), fused=True, capturable=graph)
    loss = L1Loss()
    batch, channels, height, width = job.shape
    lq = torch.rand(job.shape, device=timing.DEVICE)
    gt = torch.rand(batch, channels, job.scale * height, job.scale * width, device=timing.DEVICE)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with _autocast(job.precision):
            restored = network(lq)
        loss(restored, gt).backward()
        optimizer.step()

    return step


def _make_restoration(network: nn.Module, job: Job, graph: bool) -> Work:
    network.eval()
    image = torch.rand(job.shape, device=timing.DEVICE)

    def restore() -> None:
        with torch.inference_mode(), _autocast(job.precision):
            network(image)

    return restore


def best_rows(rows: list[Row]) -> list[Row]:
    """For each job the fastest way of MambaIR, of the published scan and of SwinIR."""
    found = []
    for work, precision in dict.fromkeys((row["work"], row["type"]) for row in rows):
        measured = [row for row in rows if (row["work"], row["type"]) == (work, precision) and row["ms"] is not None]
        summary: Row = {"work": work, "type": precision}
        ours = _fastest(measured, (OURS,))
        summary |= {"MambaIR ms": ours.get("ms"), "way": ours.get("way"), "at most ms": ours.get("at most ms")}
        summary |= {"peak MiB": ours.get("peak MiB"), "at most MiB": ours.get("at most MiB")}
        for label, names in (("published", (PUBLISHED,)), ("SwinIR", (SWINIR, SWINIR_SIZED))):
            other = _fastest(measured, names)
            ratio = ours["ms"] / other["ms"] if ours and other else None
            summary |= {f"{label} ms": other.get("ms"), f"ratio to {label}": ratio}
        found.append(summary)
    return found


def _fastest(rows: list[Row], names: tuple[str, ...]) -> Row:
    return min((row for row in rows if row["network"] in names), key=lambda row: row["ms"], default={})


def published_rows(jobs: Iterable[Job], rows: list[Row]) -> list[Row]:
    """Every measured way of ours beside the published code's figures for that job."""
    known = {(job.name, _type_name(job.precision)): job for job in jobs}
    found: list[Row] = []
    for row in rows:
        if row.get("network") != OURS or row["ms"] is None:
            continue
        job = known[row["work"], row["type"]]
        if job.published_ms is None:
            continue
        labels = {key: row[key] for key in ("work", "type", "way", "ms")}
        times = {"published ms": job.published_ms, "ratio": row["ms"] / job.published_ms}
        found.append(labels | times | {"peak MiB": row["peak MiB"], "published MiB": job.published_mebibytes})
    return found


def growth_rows(rows: list[Row]) -> list[Row]:
    """How much longer MambaIR takes for each work of GROWING than for the one before it, where both were measured."""
    times = {(row["work"], row["way"]): row["ms"] for row in rows if row["network"] == OURS and row["ms"] is not None}
    return [
        {
            "smaller": smaller[0],
            "smaller way": smaller[1],
            "smaller ms": times[smaller],
            "larger": larger[0],
            "larger way": larger[1],
            "larger ms": times[larger],
            "ratio": times[larger] / times[smaller],
            "at most": AT_MOST_GROWTH,
        }
        for smaller, larger in pairwise(GROWING)
        if smaller in times and larger in times
    ]
