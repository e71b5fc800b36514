"""Time and memory of work on a CUDA GPU, and rows of figures that may fail without ending the run."""

import gc
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch

from benchmarks.tables import Value

DEVICE = "cuda"
MEBIBYTE = 2**20
WARM_UPS = 3

Work = Callable[[], object]
Row = dict[str, Value]


@dataclass
class Budget:
    """How long measuring may go on: after `seconds` no further row is begun; None is without end."""

    seconds: float | None
    started: float = field(default_factory=time.monotonic)

    def is_spent(self) -> bool:
        """Whether the time is over."""
        return self.seconds is not None and time.monotonic() - self.started >= self.seconds


def measure_row(labels: Row, columns: Iterable[str], measure: Callable[[Row], None], budget: Budget) -> Row:
    """`labels`, the `columns` that `measure` filled in, and a remark: nothing, or why there are no (more) figures.

    Progress goes to the standard error, so that a run that is cut off has told what it found.
    """
    figures: Row = dict.fromkeys(columns)
    remark = "skipped: the time limit was reached"
    if not budget.is_spent():
        free_memory()
        try:
            measure(figures)
            remark = ""
        except Exception as error:  # compilers and drivers fail in many ways, and the other rows are still wanted
            remark = _first_line(error)
    row = labels | figures | {"remark": remark}
    told = ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items() if value
    )
    print(told, file=sys.stderr, flush=True)
    return row


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def half_type() -> torch.dtype:
    """The 16-bit type to measure in: bfloat16 where the GPU computes in it, else float16."""
    lacks_bf16 = torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if lacks_bf16 else torch.bfloat16


def name_of(dtype: torch.dtype) -> str:
    """float32 -> fp32, bfloat16 -> bf16."""
    return str(dtype).removeprefix("torch.").replace("bfloat", "bf").replace("float", "fp")


def free_memory() -> None:
    """Give back what earlier work left: collectable tensors, cached blocks and the workspaces of cuBLAS."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        # They are kept per stream and would count as this row's memory.
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()


def milliseconds(work: Work, repeats: int, warm_ups: int = WARM_UPS) -> float:
    """Median time between two events around `work`, without waiting for the device in between."""
    for _ in range(warm_ups):
        work()
    pairs = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in pairs)


def seconds_of(work: Work) -> float:
    """Time of one call by the clock on the wall, until the device is done."""
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_mebibytes(work: Work) -> tuple[float, float]:
    """(the most that `work` allocates above what was allocated before it, the most allocated in all)."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    return (peak - before) / MEBIBYTE, peak / MEBIBYTE


def reserved_mebibytes(work: Work) -> float:
    """The most memory that PyTorch holds during `work`: graphs have theirs also while nobody uses it."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_reserved() / MEBIBYTE


def capture(work: Work) -> tuple[Work, float]:
    """(a function that replays `work` as a CUDA graph, the most MiB allocated from its capture to a first replay)."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    graph.replay()
    torch.cuda.synchronize()
    return graph.replay, torch.cuda.max_memory_allocated() / MEBIBYTE


def clock_under(work: Work) -> float | None:
    """The multiprocessors' clock in MHz, read while the GPU is busy with `work`; None where nvidia-smi cannot tell."""
    if shutil.which("nvidia-smi") is None:
        return None
    gpu = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    command = ["nvidia-smi", "--query-gpu=clocks.sm", "--format=csv,noheader,nounits", f"--id={gpu}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as reading:
        while reading.poll() is None:
            for _ in range(10):
                work()
            torch.cuda.synchronize()
        answer = reading.stdout.read().strip()
    return float(answer) if answer.isdecimal() else None
