"""Exported files: what is in them, that they give PyTorch's picture, and that restore and the example take them."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mambair import load_model
from mambair.archs.layers import reflect_pad
from mambair.commands.export.command import METADATA_FILE, main
from mambair.commands.restore.command import main as restore
from mambair.errors import UserError
from mambair.inference.onnx_network import find_providers, open_session
from mambair.inference.restorer import Restorer
from tests.commands.export.conftest import SMALL_UNET, SMALL_V2, SMALL_V2_LIGHT, save_small

ROOT = Path(__file__).resolve().parents[3]


class Mirrored(nn.Module):
    """A network that is only ever given 24 x 16 pixels, as the file is."""

    scale = 2

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(reflect_pad(x, 16, 24))[..., : 2 * x.shape[2], : 2 * x.shape[3]]


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (21, 50, 3), dtype=np.uint8)


def test_metadata_tell_how_the_file_is_used(any_size: Path, small_weights: Path) -> None:
    network = load_model(any_size).network
    assert (
        network.metadata.items()
        >= {
            "scale": "2",
            "channels": "3",
            "task": "sr",
            "size": "any",
            "precision": "fp32",
            "opset": "18",
            "source": small_weights.name,
            "mean": "[0.4488, 0.4371, 0.4040]".replace("0.4040", "0.404"),
        }.items()
    )
    assert json.loads(network.metadata["options"])["type"] == "MambaIR"
    assert len(network.metadata["source_sha256"]) == 64


def test_only_standard_operators_are_in_a_file(any_size: Path) -> None:
    import onnx

    model = onnx.load(any_size)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""} and not model.functions
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [18]
    assert "Scan" in {node.op_type for node in model.graph.node}
    axes = [axis.dim_param or axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["batch", 3, "height", "width"]


@pytest.mark.parametrize("tile", ["auto", 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_size_restores_as_pytorch(
    any_size: Path, small_weights: Path, photo: np.ndarray, tile: str | int, channels: int
) -> None:
    image = np.concatenate([photo, photo[:, ::-1, :1]], axis=2)[:, :, :channels].astype(np.uint16) * 257
    expected = load_model(small_weights, tile=tile).restore(image)
    found = load_model(any_size, tile=tile).restore(image)
    assert found.dtype == np.uint16 and np.abs(found.astype(int) - expected).max() <= 8


def test_batches_and_ensembles_go_through(any_size: Path, small_weights: Path, photo: np.ndarray) -> None:
    images = np.stack([photo, photo[::-1]])
    expected = load_model(small_weights, ensemble=True, batch=2).restore(images)
    assert np.abs(load_model(any_size, ensemble=True, batch=2).restore(images).astype(int) - expected).max() <= 1


def test_one_size_restores_photos_of_any_size_in_tiles(one_size: Path, small_weights: Path, photo: np.ndarray) -> None:
    model = load_model(one_size)
    assert model.network.metadata["size"] == "24x16" and model.network.metadata["precision"] == "fp16"
    assert model.network.fixed_size == (16, 24)
    found = model.restore(photo)
    assert found.shape == (42, 100, 3)
    mirrored = Mirrored(load_model(small_weights).network)
    expected = Restorer(mirrored, device=torch.device("cpu"), tile=16).restore(photo)
    assert np.abs(found.astype(int) - expected).max() <= 2
    small = photo[:16, :24]
    assert np.abs(model.restore(small).astype(int) - load_model(small_weights).restore(small)).max() <= 2
    with pytest.raises(UserError, match="takes 24x16 pixels, not 50x21; leave --tile out"):
        load_model(one_size, tile=None).restore(photo)


def test_the_command_restores_with_a_file(any_size: Path, photo: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    assert restore([str(tmp_path / "photo.png"), "-o", str(tmp_path / "out.png"), "--weights", str(any_size)]) == 0
    assert Image.open(tmp_path / "out.png").size == (100, 42)


def test_the_example_restores_with_numpy_and_onnxruntime_alone(
    any_size: Path, one_size: Path, small_weights: Path, photo: np.ndarray, tmp_path: Path
) -> None:
    example = ROOT / "examples" / "restore_onnx.py"
    text = example.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 45 and "torch" not in text and "import mambair" not in text
    expected = load_model(small_weights)
    mirrored = np.pad(photo[:9, :5], ((0, 7), (0, 19), (0, 0)), "symmetric")  # up to the size of the file
    for file, image, whole, largest in (
        (any_size, photo, photo, 1),
        (one_size, photo[:16, :24], photo[:16, :24], 2),
        (one_size, photo[:9, :5], mirrored, 2),
    ):
        Image.fromarray(image).save(tmp_path / "photo.png")
        command = [sys.executable, str(example), str(file), str(tmp_path / "photo.png"), str(tmp_path / "out.png")]
        subprocess.run(command, check=True)
        found = np.asarray(Image.open(tmp_path / "out.png")).astype(int)
        restored = expected.restore(whole)[: 2 * image.shape[0], : 2 * image.shape[1]]
        assert np.abs(found - restored).max() <= largest


def test_the_example_cuts_a_photo_into_tiles_of_a_files_size(photo: np.ndarray) -> None:
    example = runpy.run_path(str(ROOT / "examples" / "restore_onnx.py"))
    taken: list[tuple[int, ...]] = []

    class Enlarges:
        """In the place of a session: it repeats pixels, so tiles must lie where they belong."""

        def get_inputs(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(shape=["batch", 3, 16, 24])]

        def run(self, outputs: None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            taken.append(feeds["image"].shape)
            return [feeds["image"].repeat(2, axis=2).repeat(2, axis=3)]

    image = photo.transpose(2, 0, 1)[None].astype(np.float32)
    for part in (image, image[:, :, :16], image[:, :, :3, :2], image[:, :, :17, :25]):
        assert np.array_equal(example["restore"](Enlarges(), part, 2), part.repeat(2, axis=2).repeat(2, axis=3))
    assert set(taken) == {(1, 3, 16, 24)}


def test_a_file_of_torch_export_is_no_weights(tmp_path: Path) -> None:
    (tmp_path / "small.pt2").write_bytes(b"")
    with pytest.raises(UserError, match=r"this is a program of torch.export.*or an .onnx file of `mambair export`"):
        load_model(tmp_path / "small.pt2")


def test_a_file_of_torch_export_gives_the_same_picture(small_weights: Path, photo: np.ndarray, tmp_path: Path) -> None:
    target = tmp_path / "small.pt2"
    assert main([str(small_weights), "-o", str(target), "--size", "20"]) == 0
    notes = {METADATA_FILE: ""}
    program = torch.export.load(target, extra_files=notes)
    assert json.loads(notes[METADATA_FILE])["mambair.scale"] == "2"
    lq = torch.from_numpy(photo[:20, :20].transpose(2, 0, 1).copy())[None] / 255
    with torch.no_grad():
        expected = load_model(small_weights).network(lq)
        (found,) = program.module()(lq)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("options", [SMALL_UNET, SMALL_V2_LIGHT], ids=lambda options: str(options["type"]))
def test_other_networks_for_any_size(options: dict[str, object], photo: np.ndarray, tmp_path: Path) -> None:
    weights = save_small(options, tmp_path / "small.pth")
    assert main([str(weights), "-o", str(tmp_path / "small.onnx")]) == 0
    images = np.stack([photo, photo[::-1]])
    for each in (images, images[:, :16, :8], images[:, :1, :3]):  # odd, multiples of the padding, the smallest
        expected = load_model(weights).restore(each)
        found = load_model(tmp_path / "small.onnx").restore(each)
        assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("options", [SMALL_UNET, {**SMALL_V2, "depths": [1]}], ids=lambda options: str(options["type"]))
def test_other_networks_for_one_size(options: dict[str, object], photo: np.ndarray, tmp_path: Path) -> None:
    weights = save_small(options, tmp_path / "small.pth")
    assert main([str(weights), "-o", str(tmp_path / "small.onnx"), "--size", "21x18"]) == 0
    expected = load_model(weights).restore(photo[:18, :21])
    found = load_model(tmp_path / "small.onnx").restore(photo[:18, :21])
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_threads_share_operators_in_smaller_parts(any_size: Path) -> None:
    options = open_session(any_size, find_providers("cpu")).get_session_options()
    assert options.get_session_config_entry("session.dynamic_block_base") == "1"
    assert options.intra_op_num_threads == torch.get_num_threads()
