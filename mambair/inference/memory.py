"""How much of an image fits into memory at once."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from torch import nn

from mambair.archs.network import traits_of
from mambair.runtime.freed_memory import give_back_freed_memory

logger = logging.getLogger(__name__)

# Parts of the free memory that a restoration may take. The rest is for the result, for other programs (CPU) and
# for the allocator's fragments (CUDA).
CPU_SHARE = 0.5
CUDA_SHARE = 0.8

# Sides of the two square probes between which the memory of a network is taken to grow linearly.
PROBE_SIDES = (64, 128)

# Growth of the process's peak memory per input pixel and channel of the body, rounded up: 62 to 83 bytes were measured
# for the light, classic, denoising and U-Net networks at 128x128 and 256x256 with the numba scan, and up to 126 for the
# light network at 512x512 with freed memory kept, some of which is in pieces too small to be used again.
CPU_BYTES_PER_CHANNEL = 128
# For networks that do not state their width: twice the classic network's.
DEFAULT_WIDTH = 360
# On CUDA 46 to 71 bytes were measured in bf16 with the Triton scan, and 163 with mamba-ssm's. What would fit even at
# this rate is taken whole without measuring: probes run the network four times, at sizes that no photo has, for which
# kernels are prepared.
CUDA_BYTES_PER_CHANNEL = 4 * CPU_BYTES_PER_CHANNEL

# Below this, a tile is mostly overlap.
MIN_TILE = 32
TILE_STEP = 8

# Of a container, versions 2 and 1: its limit, what it uses, and how much of that is file cache, freed when needed.
_CGROUP_FOLDERS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class MemoryCost(NamedTuple):
    """Bytes that a call of the network takes: fixed + per_pixel * pixels of the input."""

    fixed: int
    per_pixel: int


def width_of(network: nn.Module) -> int:
    """Channels of a network's body at its widest place in full resolution."""
    hyperparameters = getattr(network, "hyperparameters", {})
    if "embed_dim" in hyperparameters:
        return hyperparameters["embed_dim"]
    if "dim" in hyperparameters:
        return 2 * hyperparameters["dim"]  # the U-Net's last decoder level
    return DEFAULT_WIDTH


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the CPU or of an accelerator, did not suffice."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # PyTorch's CPU allocator raises a plain RuntimeError, worded differently on Linux and Windows.
    phrases = ("can't allocate memory", "not enough memory", "out of memory", "Failed to allocate memory")
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still allocate on the device (a container's limit counts on the CPU)."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    give_back_freed_memory()
    free = psutil.virtual_memory().available
    for folder, limit, usage, cache in _CGROUP_FOLDERS:
        free = min(free, _free_in_container(folder, limit, usage, cache))
    return max(int(free), 0)


def _free_in_container(folder: Path, limit: str, usage: str, cache: str) -> float:
    """Bytes left below a container's limit; infinity where there is none."""
    if not (folder / limit).is_file() or not (folder / limit).read_text().strip().isdigit():
        return math.inf
    statistics = dict(line.split(maxsplit=1) for line in (folder / "memory.stat").read_text().splitlines())
    used = int((folder / usage).read_text()) - int(statistics.get(cache, 0))
    return int((folder / limit).read_text()) - used


class TilePlan:
    """Chooses the largest tiles for the free memory, and remembers what turned out not to fit.

    Args:
        run: restores a (B, C, h, w) batch; measured on CUDA to learn the memory it takes per pixel.
        network: the network behind `run`; its attributes `in_channels` and `size_multiple` are read, and if it has them
            `hyperparameters`, for its width, `bytes_per_channel`, what it takes on the CPU for each pixel and channel,
            and `fixed_size`, the only (H, W) that it takes.
        device: where `run` computes.
    """

    def __init__(self, run: Callable[[torch.Tensor], torch.Tensor], network: nn.Module, device: torch.device) -> None:
        self._run, self._network, self._device = run, network, device
        self._step = math.lcm(TILE_STEP, traits_of(network).size_multiple)
        self._cost: MemoryCost | None = None
        self._limit: int | None = None

    def affordable_pixels(self) -> int:
        """Input pixels that one call of `run` can take with the memory that is free now."""
        if self._cost is None:
            self._cost = self._measure()
            logger.debug("memory of the network: %s", self._cost)
        share = CUDA_SHARE if self._device.type == "cuda" else CPU_SHARE
        pixels = max(int(share * free_memory(self._device) - self._cost.fixed), 0) // self._cost.per_pixel
        return pixels if self._limit is None else min(pixels, self._limit)

    def choose(self, shape: torch.Size) -> int | None:
        """Side of the tiles for a batch of `shape` (B, C, H, W): None if it fits whole, and at least MIN_TILE."""
        batch, _, height, width = shape
        fixed_size = getattr(self._network, "fixed_size", None)
        if fixed_size is not None:
            return None if height <= fixed_size[0] and width <= fixed_size[1] else min(fixed_size)
        if self._surely_fits(batch * height * width):
            return None
        pixels = self.affordable_pixels()
        if batch * height * width <= pixels:
            return None
        side = math.isqrt(pixels // batch) // self._step * self._step
        return max(side, MIN_TILE)

    def _surely_fits(self, pixels: int) -> bool:
        """Whether so few pixels need no measurement, which is made once, when it is first needed."""
        if self._device.type != "cuda" or self._cost is not None or self._limit is not None:
            return False
        most = pixels * CUDA_BYTES_PER_CHANNEL * width_of(self._network)
        return most <= CUDA_SHARE * free_memory(self._device)

    def shrink(self, shape: torch.Size, tile: int | None) -> None:
        """Note that a batch of `shape` with this tile did not fit: from now on, at most half the side."""
        batch, _, height, width = shape
        tried = height * width if tile is None else min(tile, height) * min(tile, width)
        self._limit = batch * tried // 4
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning("not enough memory for %d pixels at once; continuing with smaller tiles", batch * tried)

    def _measure(self) -> MemoryCost:
        if self._device.type != "cuda":
            per_channel = getattr(self._network, "bytes_per_channel", CPU_BYTES_PER_CHANNEL)
            return MemoryCost(fixed=0, per_pixel=per_channel * width_of(self._network))
        peaks = []
        for side in PROBE_SIDES:
            probe = torch.zeros(1, traits_of(self._network).in_channels, side, side, device=self._device)
            self._run(probe)  # the first call at a size also compiles kernels, which takes memory that is given back
            before = torch.cuda.memory_allocated(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            self._run(probe)
            peaks.append(torch.cuda.max_memory_allocated(self._device) - before)
        small, large = (side * side for side in PROBE_SIDES)
        per_pixel = max((peaks[1] - peaks[0]) // (large - small), 1)
        return MemoryCost(fixed=max(peaks[0] - per_pixel * small, 0), per_pixel=per_pixel)
