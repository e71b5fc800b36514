"""Weights over HTTP from a hub: hf:// addresses on the command line and in Python, and from_pretrained."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mambair import load_model
from mambair.archs import MambaIR, load_network
from mambair.commands.restore.command import main
from mambair.errors import UserError
from mambair.imaging.photo import Photo, read_photo, write_photo
from tests.fake_hub import COMMIT, FakeHub, serve

constants = pytest.importorskip("huggingface_hub", reason="the extra [hub] is not installed").constants


@pytest.fixture
def hub(tmp_path: Path, x2_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with light_x2.pth, and an empty cache for what comes from it."""
    with serve() as (hub, address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        hub.files["sub/light_x2.pth"] = x2_weights.read_bytes()
        yield hub


def test_the_command_fetches_once_and_restores(hub: FakeHub, tmp_path: Path) -> None:
    write_photo(tmp_path / "a.png", Photo(np.zeros((5, 7, 3), np.uint8)))
    for run in ("first", "second"):
        arguments = [
            str(tmp_path / "a.png"),
            "-o",
            str(tmp_path / run),
            "--weights",
            "hf://owner/repo/sub/light_x2.pth",
        ]
        assert main(arguments) == 0
        assert read_photo(tmp_path / run / "a.png").pixels.shape == (10, 14, 3)
    assert hub.downloads == ["sub/light_x2.pth"]


def test_revisions_and_hashes(hub: FakeHub) -> None:
    sha256 = hashlib.sha256(hub.files["sub/light_x2.pth"]).hexdigest()
    for tail in (f"@{COMMIT}", "@main", f"#sha256={sha256}", f"@main#sha256={sha256}"):
        assert load_model(f"hf://owner/repo/sub/light_x2.pth{tail}", device="cpu").scale == 2
    with pytest.raises(UserError, match="SHA-256 0000"):
        load_model(f"hf://owner/repo/sub/light_x2.pth#sha256={'0' * 64}")


def test_a_transfer_that_goes_wrong_is_noticed(hub: FakeHub) -> None:
    hub.damage = True
    with pytest.raises(UserError, match="SHA-256"):
        load_model("hf://owner/repo/sub/light_x2.pth")


@pytest.mark.parametrize(
    "address", ["hf://owner/repo/gone.pth", "hf://owner/repo/sub/light_x2.pth@v9", "hf://no/such/x.pth"]
)
def test_what_is_not_there_is_one_line(hub: FakeHub, address: str) -> None:
    with pytest.raises(UserError, match="cannot be fetched") as caught:
        load_model(address)
    assert address in str(caught.value) and "\n" not in str(caught.value)


def test_from_pretrained(hub: FakeHub, tmp_path: Path, x2_weights: Path) -> None:
    network = load_network(x2_weights)
    network.save_pretrained(tmp_path / "saved")
    hub.files |= {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    loaded = MambaIR.from_pretrained("owner/repo")
    x = torch.rand(1, 3, 6, 5)
    assert torch.equal(loaded(x), network(x))
    assert load_model("hf://owner/repo/model.safetensors", device="cpu").scale == 2
