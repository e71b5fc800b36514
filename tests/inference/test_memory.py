"""Free memory, as a container's limit leaves it."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from mambair.inference import memory
from mambair.inference.memory import CUDA_BYTES_PER_CHANNEL, CUDA_SHARE, MemoryCost, TilePlan, free_memory


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container with a limit of 1000 bytes that uses 700, of which 200 are cached files."""
    files = {"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "anon 500\ninactive_file 200\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "_CGROUP_FOLDERS", ((tmp_path, "memory.max", "memory.current", "inactive_file"),))
    return tmp_path


def test_cached_files_count_as_free(container: Path) -> None:
    assert free_memory(torch.device("cpu")) == 500


def test_a_container_beyond_its_limit_has_no_memory_left(container: Path) -> None:
    (container / "memory.current").write_text("2000")
    assert free_memory(torch.device("cpu")) == 0


@pytest.mark.parametrize("limit", ["max\n", None])
def test_without_a_limit_the_machine_counts(container: Path, limit: str | None) -> None:
    if limit is None:
        (container / "memory.max").unlink()
    else:
        (container / "memory.max").write_text(limit)
    assert 1000 < free_memory(torch.device("cpu")) < math.inf


class Light(nn.Module):
    """What a plan reads of a network."""

    in_channels, scale, size_multiple = 3, 2, 1
    hyperparameters = {"embed_dim": 60}


def test_on_a_gpu_memory_is_measured_once_and_only_for_images_that_might_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needed = 512 * 512 * 60 * CUDA_BYTES_PER_CHANNEL
    monkeypatch.setattr(memory, "free_memory", lambda device: int(needed / CUDA_SHARE) + 1)
    measured = []

    def measure(plan: TilePlan) -> MemoryCost:
        measured.append(plan)
        return MemoryCost(fixed=0, per_pixel=60 * CUDA_BYTES_PER_CHANNEL // 2)

    monkeypatch.setattr(TilePlan, "_measure", measure)
    plan = TilePlan(lambda lq: lq, Light(), torch.device("cuda"))
    assert plan.choose(torch.Size((1, 3, 512, 512))) is None
    assert not measured
    assert plan.choose(torch.Size((2, 3, 512, 512))) is None
    assert plan.choose(torch.Size((1, 3, 1024, 1024))) == 720  # the largest multiple of 8 with half as many pixels
    assert plan.choose(torch.Size((1, 3, 512, 512))) is None
    assert len(measured) == 1


def test_what_did_not_fit_is_not_taken_for_sure_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 10**12)
    monkeypatch.setattr(TilePlan, "_measure", lambda plan: MemoryCost(fixed=0, per_pixel=1))
    plan = TilePlan(lambda lq: lq, Light(), torch.device("cuda"))
    shape = torch.Size((1, 3, 512, 512))
    assert plan.choose(shape) is None
    plan.shrink(shape, None)
    assert plan.choose(shape) == 256
