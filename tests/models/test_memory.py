"""Free memory, as a container's limit leaves it."""

import math
from pathlib import Path

import pytest
import torch

from mambair.models import memory
from mambair.models.memory import free_memory


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
