from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.processes import Trainers
from tests.faults.scene import Scene, copy_scene, make_reference


@pytest.fixture(scope="session")
def reference_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scene")
    make_reference(root)
    return root


@pytest.fixture
def scene(reference_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> Scene:
    return copy_scene(reference_run, tmp_path / "scene", capfd)


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainers]:
    with Trainers(tmp_path_factory.mktemp("logs")) as trainers:
        yield trainers
