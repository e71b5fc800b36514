"""What a model starts from: files, and names of weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mambair.errors import UserError
from mambair.models.components import build_generator
from mambair.options import parse_test_options
from mambair.weights.sources import shipped_weights

ROOT = Path(__file__).resolve().parents[2]


def start(weights: str):
    """The light network, started from `weights`."""
    recipe = ROOT / "options" / "test" / "lightSR_x2_BSD400.yml"
    return build_generator(parse_test_options(recipe, force_yml=[f"path:pretrain_network_g={weights}"]))


def test_a_name_stands_for_the_weights_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shipped_weights()["x2"]
    state = start(path.stem).state_dict()
    assert all(torch.equal(value.float(), state[key]) for key, value in load_file(path).items())
    monkeypatch.chdir(tmp_path)
    Path(path.stem).write_bytes(b"")
    with pytest.raises(UserError, match="is empty"):  # a file of that name comes first
        start(path.stem)


def test_published_weights_must_have_been_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMBAIR_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="mambair weights get lightSR_x2"):
        start("lightSR_x2")
    with pytest.raises(UserError, match=r"nowhere\.pth: no such file"):
        start("nowhere.pth")
    with pytest.raises(UserError, match="File name too long"):
        start("a" * 300)
