"""The GPU section: the scan alone with its roofline, and whole networks beside SwinIR."""

import math
import statistics
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.networks import LIGHT, build_swinir_light
from benchmarks.tables import Settings, Table, Value
from mambair.archs import build_network
from mambair.errors import UserError
from mambair.ops import available_backends, ss2d_scan

MEBIBYTE = 2**20
DIRECTIONS = 4
# Exponentials per clock and multiprocessor, on every NVIDIA GPU from Volta to Hopper.
EXPONENTIALS_PER_CLOCK = 16
CLASSIC = {"type": "MambaIR", "upscale": 2, "embed_dim": 180, "depths": [6] * 6, "d_state": 16, "mlp_ratio": 2.0}

# Name, batch, height, width, channels, states, rank of delta.
SCANS = (
    ("classic 4 x 64x64", 4, 64, 64, 360, 16, 12),
    ("classic 1 x 256x256", 1, 256, 256, 360, 16, 12),
    ("light 16 x 64x64", 16, 64, 64, 72, 10, 4),
)


def run_gpu(settings: Settings) -> Iterator[Table]:
    """All tables of this section. Raises UserError without a CUDA GPU."""
    if not torch.cuda.is_available():
        raise UserError("--gpu: no CUDA GPU is usable; run nvidia-smi to see whether the driver finds one")
    yield _time_scans(settings)
    yield _time_networks(settings)


def milliseconds(work: Callable[[], None], repeats: int) -> float:
    """Median time between two events around `work`, after three warm-ups."""
    for _ in range(3):
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


def peak_mebibytes(work: Callable[[], None]) -> float:
    """Most memory allocated during `work`, what was allocated before included."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / MEBIBYTE


def copy_bandwidth(repeats: int) -> float:
    """Bytes per millisecond of a large copy, read and written ones counted."""
    source = torch.empty(2**29, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / milliseconds(lambda: target.copy_(source), repeats)


def _scan_inputs(batch: int, height: int, width: int, channels: int, states: int, rank: int) -> dict[str, Tensor]:
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device="cuda")

    inputs = {
        "x": normal(batch, height, width, channels).bfloat16(),
        "x_proj_weight": normal(DIRECTIONS, rank + 2 * states, channels) / channels**0.5,
        "dt_projs_weight": normal(DIRECTIONS, channels, rank) / rank**0.5,
        "dt_projs_bias": normal(DIRECTIONS, channels) - 4.0,
        "A_logs": torch.arange(1.0, states + 1, device="cuda").log().repeat(DIRECTIONS * channels, 1),
        "Ds": torch.ones(DIRECTIONS * channels, device="cuda"),
    }
    return {name: value.requires_grad_() for name, value in inputs.items()}


def _time_scans(settings: Settings) -> Table:
    properties = torch.cuda.get_device_properties(0)
    bytes_per_ms = copy_bandwidth(settings.repeats)
    # In kHz, that is clocks per millisecond; the property is missing from some versions of PyTorch.
    clock = getattr(properties, "clock_rate", None)
    backends = [name for name in ("triton", "mamba_ssm") if available_backends("cuda")[name] is None]
    rows: list[dict[str, Value]] = []
    for name, batch, height, width, channels, states, rank in SCANS[:1] if settings.quick else SCANS:
        pixels = batch * height * width
        exponentials = pixels * DIRECTIONS * channels * states
        rate = EXPONENTIALS_PER_CLOCK * properties.multi_processor_count * clock if clock else math.nan
        for backend in backends:
            inputs = _scan_inputs(batch, height, width, channels, states, rank)

            def forward(inputs: dict[str, Tensor] = inputs, backend: str = backend) -> None:
                with torch.no_grad():
                    ss2d_scan(**inputs, backend=backend)

            def both(inputs: dict[str, Tensor] = inputs, backend: str = backend) -> None:
                y = ss2d_scan(**inputs, backend=backend)
                torch.autograd.grad(y, list(inputs.values()), torch.ones_like(y))

            rows.append(
                {
                    "scan, bf16": name,
                    "backend": backend,
                    "forward ms": milliseconds(forward, settings.repeats),
                    "forward+backward ms": milliseconds(both, settings.repeats),
                    "peak MiB": peak_mebibytes(both),
                    "floor, bytes ms": 2 * 2 * pixels * channels / bytes_per_ms,
                    "floor, exponentials ms": exponentials / rate,
                }
            )
    note = "Median of CUDA events. Floors: of forward; x read and y written once; one exponential per state."
    return Table("Scan on the GPU", rows, note)


def _networks() -> Iterator[tuple[str, Callable[[], nn.Module], tuple[int, ...], tuple[int, ...]]]:
    """(name, builder, shape of a training batch, shape of an image to restore)."""
    yield "MambaIR x2", lambda: build_network(CLASSIC), (4, 3, 64, 64), (1, 3, 256, 256)
    yield "MambaIR-light x2", lambda: build_network(LIGHT), (16, 3, 64, 64), (1, 3, 360, 640)
    yield "SwinIR-light x2", build_swinir_light, (16, 3, 64, 64), (1, 3, 360, 640)


def _time_networks(settings: Settings) -> Table:
    rows: list[dict[str, Value]] = []
    missing = ""
    for name, build, batch, image in _networks():
        try:
            network = build().cuda()
        except UserError as error:
            missing = f" Left out: {name} ({error})."
            continue
        if settings.quick:
            batch, image = (1, *batch[1:]), batch
        rows.append({"network, bf16 autocast": name} | _time_network(network, batch, image, settings.repeats))
    note = f"Median of CUDA events. A training step is forward, L1 loss, backward and a fused Adam step.{missing}"
    return Table("Networks on the GPU", rows, note)


def _time_network(network: nn.Module, batch: tuple[int, ...], image: tuple[int, ...], repeats: int) -> dict[str, Value]:
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    patches, picture = torch.rand(batch, device="cuda"), torch.rand(image, device="cuda")

    def step() -> None:
        network.train()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            restored = network(patches)
        restored.float().abs().mean().backward()
        optimizer.step()

    def restore() -> None:
        network.eval()
        with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
            network(picture)

    figures: dict[str, Value] = {
        "training step ms": milliseconds(step, repeats),
        "its peak MiB": peak_mebibytes(step),
        "inference ms": milliseconds(restore, repeats),
    }
    # Gradients and the optimizer's moments are no part of inference.
    optimizer.state.clear()
    network.zero_grad(set_to_none=True)
    return figures | {"its peak MiB, inference": peak_mebibytes(restore)}
