"""The logic of the GPU section of scripts/benchmark.py, on the CPU: only clocks, peaks and graphs are replaced."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mambair.archs import build_network
from mambair.errors import UserError
from mambair.ops.backends import ENVIRONMENT_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "type": "MambaIR",
    "upscale": 2,
    "embed_dim": 12,
    "depths": [1],
    "d_state": 2,
    "mlp_ratio": 1.0,
    "upsampler": "pixelshuffledirect",
}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The modules of the section, measuring on the CPU, where a graph cannot be captured."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from benchmarks import gpu, gpu_networks, gpu_scans, gpu_starts, jobs, networks, roofline, tables, timing

    def seconds(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def refuse(work: Callable[[], object]) -> None:
        raise RuntimeError("no graph on the CPU\nand a second line")

    monkeypatch.setattr(timing, "DEVICE", "cpu")
    monkeypatch.setattr(timing, "seconds_of", seconds)
    monkeypatch.setattr(timing, "milliseconds", lambda work, repeats, warm_ups=0: 1e3 * seconds(work))
    monkeypatch.setattr(timing, "peak_mebibytes", lambda work: (1.0, 2.0))
    monkeypatch.setattr(timing, "clock_under", lambda work: 1000.0)
    monkeypatch.setattr(timing, "capture", refuse)
    modules = (gpu, gpu_networks, gpu_scans, gpu_starts, jobs, networks, roofline, tables, timing)
    return SimpleNamespace(**{module.__name__.rpartition(".")[2]: module for module in modules})


def _tiny() -> nn.Module:
    return build_network(TINY)


def _settings(bench: SimpleNamespace, **changes: object) -> object:
    return bench.tables.Settings(**{"threads": 1, "repeats": 1, "quick": False} | changes)


def test_a_failing_row_keeps_what_was_measured_and_says_why(
    bench: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(figures: dict) -> None:
        figures["ms"] = 1.5
        raise RuntimeError("\nout of memory\nby much")

    row = bench.timing.measure_row({"work": "a"}, ("ms", "peak"), measure, bench.timing.Budget(None))
    assert row == {"work": "a", "ms": 1.5, "peak": None, "remark": "RuntimeError: out of memory"}
    assert "out of memory" in capsys.readouterr().err


def test_no_row_is_begun_after_the_time_limit(bench: SimpleNamespace) -> None:
    def measure(figures: dict) -> None:
        raise AssertionError("begun")

    row = bench.timing.measure_row({"work": "a"}, ("ms",), measure, bench.timing.Budget(0.0))
    assert row == {"work": "a", "ms": None, "remark": "skipped: the time limit was reached"}


def test_floors_of_a_scan(bench: SimpleNamespace) -> None:
    gpu = SimpleNamespace(
        multiprocessors=10, lanes=128, bytes_per_ms=lambda: 1e6, product_flops_per_ms=lambda dtype: 1e9
    )
    case = bench.roofline.ScanCase("", 2, 10, 5, 20, 4, 3, torch.bfloat16)  # 100 pixels
    forward = bench.roofline.floors(case, False, gpu, megahertz=1000.0)
    assert forward["bytes ms"] == pytest.approx(2 * 100 * 20 * 2 / 1e6)
    assert forward["exponentials ms"] == pytest.approx(2 * 100 * 4 * 20 * 4 / (16 * 10 * 1e6))
    projections = 2 * 100 * 20 * 4 * (3 + 2 * 4) + 2 * 100 * 4 * 20 * 3  # to (dt, B, C), and dt to delta
    assert forward["products ms"] == pytest.approx(projections / 1e9)
    assert forward["arithmetic ms"] == pytest.approx((9 * 100 * 80 * 4 + 100 * 80) / (2 * 128 * 10 * 1e6))
    both = bench.roofline.floors(case, True, gpu, megahertz=1000.0)
    factors = {"bytes ms": 2.5, "exponentials ms": 2, "products ms": 3, "arithmetic ms": 3}
    assert both == pytest.approx({key: factors[key] * value for key, value in forward.items()})
    assert bench.roofline.floors(case, True, gpu, megahertz=None)["exponentials ms"] is None


def test_scan_rows(bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(multi_processor_count=1, major=7, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(bench.roofline, "COPY_BYTES", 2**20)
    monkeypatch.setattr(bench.roofline, "PRODUCT_SIZE", 64)
    cases = [
        bench.roofline.ScanCase(name, 1, side, side, 8, 2, 1, torch.float32, {"forward": 9.0}, 7.0)
        for name, side in ((bench.gpu_scans.SMALLER, 4), (bench.gpu_scans.LARGER, 8))
    ]
    monkeypatch.setattr(bench.gpu_scans, "_cases", lambda quick: cases)
    monkeypatch.setattr(bench.gpu_scans, "BACKENDS", ("numba", "mamba_ssm"))
    scans, rates, growth = bench.gpu_scans.time_scans(_settings(bench), bench.timing.Budget(None))
    assert [row["pass"] for row in scans.rows] == ["forward", "fwd + bwd"] * 2
    for row in scans.rows:
        assert row["ms"] > 0
        assert row["in a graph ms"] is None
        assert row["remark"] == "RuntimeError: no graph on the CPU"
        assert row["time/floor"] == row["ms"] / max(row[key] for key in bench.gpu_scans.FLOORS)
        assert row["at most ms"] is None, "the limits are the Triton kernels'"
    assert list(rates.rows[0]) == ["gpu", "multiprocessors", "fp32 lanes each", "copy GB/s", "fp32 TFLOP/s"]
    assert rates.rows[0]["fp32 lanes each"] == 64
    assert "Without mamba_ssm: it runs on NVIDIA GPUs" in scans.note
    assert [row["ratio"] for row in growth.rows] == [
        larger["ms"] / smaller["ms"] for smaller, larger in zip(scans.rows[:2], scans.rows[2:], strict=True)
    ]


def test_training_rows_of_all_ways(bench: SimpleNamespace) -> None:
    network = build_network(TINY)
    before = network.conv_first.weight.clone()
    seen = []

    def build() -> nn.Module:
        seen.append((os.environ[ENVIRONMENT_VARIABLE], torch.get_float32_matmul_precision()))
        return network

    ours = bench.jobs.Contender(bench.jobs.OURS, build, "numba", ("eager", "CUDA graph"))
    job = bench.jobs.Job("tiny", (1, 3, 8, 8), bench.jobs.TF32, (ours,), at_most_ms=5.0)
    steps, best = bench.gpu_networks.time_training(_settings(bench), bench.timing.Budget(None), (job,))
    eager, graph = steps.rows
    assert eager["ms"] > 0
    assert (eager["peak MiB"], eager["at most ms"], eager["remark"]) == (2.0, 5.0, "")
    assert graph["ms"] is None
    assert graph["remark"]
    assert [best.rows[0][key] for key in ("MambaIR ms", "way", "SwinIR ms")] == [eager["ms"], "eager", None]
    assert not torch.equal(network.conv_first.weight, before), "a training step trains"
    assert seen == [("numba", "high")] * 2
    assert ENVIRONMENT_VARIABLE not in os.environ
    assert torch.get_float32_matmul_precision() == "highest"


def test_inference_rows_beside_swinir(bench: SimpleNamespace) -> None:
    pytest.importorskip("spandrel")
    jobs, swinir = bench.jobs, {"embed_dim": 12, "depths": [2], "num_heads": [2], "upsampler": "pixelshuffledirect"}
    ours = jobs.Contender(jobs.OURS, _tiny, "numba", ("eager",))
    contenders = (
        ours,
        jobs._swinir(swinir, ("eager",)),
        jobs._swinir_sized(swinir, (8, 8), ("eager", "CUDA graph")),
        jobs._published(TINY),
    )
    job = jobs.Job("tiny", (1, 3, 8, 8), jobs.HALF, contenders, slow=True)
    rows, best = bench.gpu_networks.time_inference(_settings(bench), bench.timing.Budget(None), (job,))
    assert [row["network"] for row in rows.rows] == [jobs.OURS, jobs.SWINIR, jobs.SWINIR_SIZED, jobs.SWINIR_SIZED]
    assert {row["type"] for row in rows.rows} == {"bf16"}
    assert "Without the published scan" in rows.note
    fastest = min(row["ms"] for row in rows.rows[1:3])
    assert best.rows[0]["ratio to SwinIR"] == rows.rows[0]["ms"] / fastest


def test_swinir_is_compiled_too_and_the_published_scan_is_not(bench: SimpleNamespace) -> None:
    jobs = bench.jobs
    ways = {
        (kind, job.name, job.precision, contender.name): contender.ways
        for kind, made in (("train", jobs.training_jobs()), ("infer", jobs.inference_jobs()))
        for job in made
        for contender in job.contenders
    }
    half, light = "half", "light x2, 16 x 64x64"
    assert ways["train", light, half, jobs.SWINIR] == ways["train", light, half, jobs.OURS] == jobs.ALL_WAYS
    assert ways["train", light, half, jobs.PUBLISHED] == ("eager", "CUDA graph")
    assert ways["infer", jobs.CLASSIC_256, half, jobs.SWINIR_SIZED] == jobs.ALL_WAYS
    assert ways["infer", jobs.CLASSIC_256, half, jobs.SWINIR] == ("eager",)
    assert all(way in ways["infer", name, half, jobs.OURS] for name, way in jobs.GROWING)


def test_growth_compares_the_ways_it_names(bench: SimpleNamespace) -> None:
    jobs = bench.jobs

    def row(work: str, way: str, ms: float | None, network: str = jobs.OURS) -> dict:
        labels = {"work": work, "type": "bf16", "network": network, "way": way}
        return labels | {"ms": ms, "at most ms": None, "peak MiB": None, "at most MiB": None}

    rows = [
        row(jobs.CLASSIC_256, jobs.GRAPH, 90.0),
        row(jobs.CLASSIC_256, jobs.BOTH, 70.0),
        row(jobs.CLASSIC_256, jobs.BOTH, 60.0, jobs.SWINIR_SIZED),
        row(jobs.CLASSIC_256, jobs.EAGER, 65.0, jobs.SWINIR),
        row(jobs.CLASSIC_512, jobs.GRAPH, 360.0),
        row(jobs.CLASSIC_1024, jobs.EAGER, 1620.0),
    ]
    growth = bench.gpu_networks.growth_rows(rows)
    assert [(found["smaller ms"], found["larger ms"], found["ratio"]) for found in growth] == [
        (90.0, 360.0, 4.0),
        (360.0, 1620.0, 4.5),
    ]
    assert {found["at most"] for found in growth} == {bench.gpu_scans.AT_MOST_GROWTH}
    assert bench.gpu_networks.growth_rows([*rows[:4], row(jobs.CLASSIC_512, jobs.GRAPH, None), rows[5]]) == []
    best = bench.gpu_networks.best_rows(rows)
    assert [(found["work"], found["MambaIR ms"], found["way"]) for found in best] == [
        (jobs.CLASSIC_256, 70.0, jobs.BOTH),
        (jobs.CLASSIC_512, 360.0, jobs.GRAPH),
        (jobs.CLASSIC_1024, 1620.0, jobs.EAGER),
    ]
    assert [found["SwinIR ms"] for found in best] == [60.0, None, None]
    assert best[0]["ratio to SwinIR"] == 70.0 / 60.0


def test_the_table_of_growth_follows_those_of_inference(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = bench.jobs
    made = tuple(
        jobs.Job(name, (1, 3, side, side), jobs.HALF, (jobs.Contender(jobs.OURS, _tiny, "numba", (way,)),), slow=True)
        for (name, way), side in zip(jobs.GROWING, (4, 8, 16), strict=True)
    )
    arguments = (_settings(bench), bench.timing.Budget(None), made)
    assert len(list(bench.gpu_networks.time_inference(*arguments))) == 2, "without graphs nothing can be compared"
    monkeypatch.setattr(bench.timing, "capture", lambda work: (work, 3.0))
    rows, _, growth = bench.gpu_networks.time_inference(*arguments)
    assert [found["larger ms"] for found in growth.rows] == [row["ms"] for row in rows.rows[1:]]
    assert [found["larger way"] for found in growth.rows] == ["CUDA graph", "eager"]
    quick = (_settings(bench, quick=True), *arguments[1:])
    assert len(list(bench.gpu_networks.time_inference(*quick))) == 2, "small sizes tell nothing of growth"


def test_version_2_is_measured_as_people_run_it_beside_the_published_code(bench: SimpleNamespace) -> None:
    jobs = bench.jobs
    made = (*jobs.v2_training_jobs(), *jobs.v2_inference_jobs())
    half = [job for job in made if job.precision == jobs.HALF]
    assert {job.name for job in half} == {job.name for job in made}
    assert all(job.contenders[0].ways == (jobs.AS_IT_COMES, jobs.EAGER, jobs.GRAPH) for job in half)
    assert all({jobs.AS_IT_COMES, jobs.EAGER} <= set(job.contenders[0].ways) for job in made)
    assert all(job.published_ms is not None for job in made)


def test_rows_of_version_2_beside_the_published_code(bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = bench.jobs
    ours = jobs.Contender(jobs.OURS, _tiny, "numba", (jobs.AS_IT_COMES, jobs.EAGER))
    other = jobs.Contender(jobs.SWINIR, _tiny, "numba", (jobs.EAGER,))
    step = jobs.Job("step", (1, 3, 8, 8), jobs.HALF, (ours, other), published_ms=50.0, published_mebibytes=7.0)
    image = jobs.Job("image", (1, 3, 8, 8), jobs.FP32, (ours,), published_ms=20.0)
    monkeypatch.setattr(bench.timing, "reserved_mebibytes", lambda work: 3.0)
    monkeypatch.setattr(bench.gpu_networks, "v2_training_jobs", lambda: (step,))
    monkeypatch.setattr(bench.gpu_networks, "v2_inference_jobs", lambda: (image,))
    *tables, compared = bench.gpu_networks.time_v2(_settings(bench), bench.timing.Budget(None))
    assert [len(table.rows) for table in tables] == [3, 1, 2, 1]
    assert [(row["work"], row["type"], row["way"]) for row in compared.rows] == [
        ("step", "bf16", "as it comes"),
        ("step", "bf16", "eager"),
        ("image", "fp32", "as it comes"),
        ("image", "fp32", "eager"),
    ]
    assert [row["published ms"] for row in compared.rows] == [50.0, 50.0, 20.0, 20.0]
    assert [row["published MiB"] for row in compared.rows] == [7.0, 7.0, None, None]
    assert [row["peak MiB"] for row in compared.rows] == [3.0, 2.0] * 2
    assert all(row["ratio"] == row["ms"] / row["published ms"] for row in compared.rows)
    assert len(list(bench.gpu_networks.time_v2(_settings(bench, quick=True), bench.timing.Budget(None)))) == 4


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("CLASSIC", 20_421_863), ("LIGHT", 905_016), ("UNET", 26_779_480), ("V2_LIGHT", 774_092), ("V2_BASE", 22_903_001)],
)
def test_the_networks_are_the_papers(bench: SimpleNamespace, name: str, parameters: int) -> None:
    network = build_network(getattr(bench.networks, name))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_only_the_parts_that_are_asked_for(bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(bench.gpu, "PARTS", {name: lambda *_, name=name: [name] for name in bench.gpu.PARTS})
    assert list(bench.gpu.run_gpu(_settings(bench, only=("infer", "scan")))) == ["scan", "infer"]


def test_without_a_gpu(bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA GPU"):
        next(bench.gpu.run_gpu(_settings(bench)))


def test_markdown_and_json_are_there_after_an_interruption(
    bench: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = bench.tables

    def section(settings: object) -> object:
        yield tables.Table("Times", [{"way": "eager", "ms": 1234.56}, {"way": "graph", "ms": None}], "A note.")
        raise KeyboardInterrupt

    file = tmp_path / "figures.json"
    with pytest.raises(KeyboardInterrupt):
        tables.Report({}).run([section], _settings(bench), file)
    expected = "## Times\n\n| way | ms |\n| --- | ---: |\n| eager | 1235 |\n| graph | - |\n\nA note.\n"
    assert expected in capsys.readouterr().out
    assert '"ms": 1234.56' in file.read_text(encoding="utf-8")


def test_the_command_is_timed_with_an_empty_cache_first(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches, sources = [], []

    def run(command: list[str], env: dict[str, str], **_: object) -> None:
        caches.append(sorted(path.name for path in Path(env["TRITON_CACHE_DIR"]).glob("*")))
        sources.append(len(list(Path(command[2]).glob("*.png"))) or 1)
        Path(env["TRITON_CACHE_DIR"], "kernel").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(bench.gpu_starts.subprocess, "run", run)
    (table,) = bench.gpu_starts.time_starts(_settings(bench, quick=True), bench.timing.Budget(None))
    assert caches == [[], ["kernel"], ["kernel"]]
    assert sources == [1, 1, bench.gpu_starts.QUICK_PHOTOS]
    assert all(isinstance(row["seconds"], float) for row in table.rows)
