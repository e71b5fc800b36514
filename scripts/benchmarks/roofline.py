"""The least time that a scan can take on this GPU, by the bytes, exponentials and operations that it needs.

A pass is one walk over all states. Parallel chunks need two passes forward (each chunk's end state, then the outputs)
and two backward (states again with the adjoints, then the gradients), with one exponential for each state in each.
"""

from dataclasses import dataclass, field

import torch

from benchmarks import timing
from mambair.ops.flops import BACKWARD_FACTOR, selective_scan_flops, ss2d_scan_flops

DIRECTIONS = 4
# Exponentials per clock and multiprocessor, on every NVIDIA GPU from Volta to Hopper.
EXPONENTIALS_PER_CLOCK = 16
# float32 lanes of a multiprocessor by compute capability; later ones have 128. A lane multiplies and adds each clock.
LANES = {(7, 0): 64, (7, 2): 64, (7, 5): 64, (8, 0): 64}
NEWER_LANES = 128
PASSES_FORWARD = 2
PASSES_BACKWARD = 2
COPY_BYTES = 2**29
PRODUCT_SIZE = 4096
CLOCKS_PER_MS = 1e3  # at 1 MHz
BYTES_PER_MS = 1e6  # at 1 GB/s
FLOPS_PER_MS = 1e9  # at 1 TFLOP/s


@dataclass(frozen=True)
class ScanCase:
    """One `ss2d_scan` that is measured, with the project's limits for it."""

    name: str
    batch: int
    height: int
    width: int
    channels: int
    states: int
    rank: int
    dtype: torch.dtype
    at_most: dict[str, float] = field(default_factory=dict)
    """Milliseconds by pass ("forward", "fwd + bwd")."""
    at_most_mebibytes: float | None = None
    """Peak memory, forward and backward."""

    @property
    def pixels(self) -> int:
        """Pixels of the whole batch."""
        return self.batch * self.height * self.width


class Gpu:
    """What this GPU can do at most, measured when first asked for."""

    def __init__(self, repeats: int) -> None:
        properties = torch.cuda.get_device_properties(0)
        self.multiprocessors: int = properties.multi_processor_count
        self.lanes = LANES.get((properties.major, properties.minor), NEWER_LANES)
        self._repeats = repeats
        self._bandwidth: float | None = None
        self._product_rates: dict[torch.dtype, float] = {}

    def bytes_per_ms(self) -> float:
        """Of a large copy, bytes read and bytes written both counted."""
        if self._bandwidth is None:
            source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=timing.DEVICE)
            target = torch.empty_like(source)
            self._bandwidth = 2 * COPY_BYTES / timing.milliseconds(lambda: target.copy_(source), self._repeats)
        return self._bandwidth

    def product_flops_per_ms(self, dtype: torch.dtype) -> float:
        """Operations of a large matrix product in this type."""
        if dtype not in self._product_rates:
            factor = torch.randn(PRODUCT_SIZE, PRODUCT_SIZE, device=timing.DEVICE).to(dtype)
            time = timing.milliseconds(lambda: factor @ factor, self._repeats)
            self._product_rates[dtype] = 2 * PRODUCT_SIZE**3 / time
        return self._product_rates[dtype]

    def rates(self) -> dict[str, str | float | int]:
        """What was found so far, for a table."""
        found: dict[str, str | float | int] = {
            "gpu": torch.cuda.get_device_name(),
            "multiprocessors": self.multiprocessors,
            "fp32 lanes each": self.lanes,
        }
        if self._bandwidth is not None:
            found["copy GB/s"] = self._bandwidth / BYTES_PER_MS
        rates = self._product_rates.items()
        return found | {f"{timing.name_of(dtype)} TFLOP/s": rate / FLOPS_PER_MS for dtype, rate in rates}


def floors(case: ScanCase, backward: bool, gpu: Gpu, megahertz: float | None) -> dict[str, float | None]:
    """Milliseconds by what sets the floor; None without a clock. `backward`: of forward and backward together."""
    images = 5 if backward else 2  # x and y; x, the gradient of y and the gradient of x
    passes = PASSES_FORWARD + PASSES_BACKWARD * backward
    factor = 1 + BACKWARD_FACTOR * backward
    channels = DIRECTIONS * case.channels
    of_scan = selective_scan_flops(1, case.pixels, channels, case.states)
    whole = ss2d_scan_flops(1, case.pixels, case.channels, case.states, case.rank, DIRECTIONS)
    found: dict[str, float | None] = {
        "bytes ms": images * case.pixels * case.channels * case.dtype.itemsize / gpu.bytes_per_ms(),
        "exponentials ms": None,
        "products ms": factor * (whole - of_scan) / gpu.product_flops_per_ms(case.dtype),
        "arithmetic ms": None,
    }
    if megahertz is not None:
        clocks = gpu.multiprocessors * megahertz * CLOCKS_PER_MS
        found["exponentials ms"] = passes * case.pixels * channels * case.states / (EXPONENTIALS_PER_CLOCK * clocks)
        found["arithmetic ms"] = factor * of_scan / (2 * gpu.lanes * clocks)
    return found
