"""Where documented commands are tried."""

from pathlib import Path

import pytest

from tests.commands.documented import build_world


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder with the weights, photos and data sets that the commands name, all of them tiny."""
    folder = tmp_path / "world"
    folder.mkdir()
    build_world(folder)
    return folder
