"""What export and restore refuse, in one line, and that nothing is left behind."""

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from mambair import load_model
from mambair.archs import build_network
from mambair.commands.export.checking import LARGEST_ERROR, Agreement, parting
from mambair.commands.export.command import check_exportable, main
from mambair.errors import UserError
from mambair.inference import onnx_network
from mambair.ops.ss2d import portable
from mambair.options.plugins import load_plugins
from mambair.weights.loading import save_weights

PLAIN_NETWORKS = """
import torch
from torch import nn
from mambair.registry import ARCHS

@ARCHS.register()
class ExportedPlain(nn.Module):
    in_channels = 3
    def __init__(self, width: int = 4):
        super().__init__()
        self.hyperparameters = {"width": width}
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.last = nn.Conv2d(width, 3, 3, padding=1)
    def forward(self, x):
        return x + self.last(torch.relu(self.first(x)))

@ARCHS.register()
class ExportedBranching(ExportedPlain):
    def forward(self, x):
        return super().forward(x) if x.sum().item() > 0 else x
"""

inverse_orders = portable._inverse_orders


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_arguments_are_refused_before_anything_is_read(small_weights: Path, tmp_path: Path, capsys) -> None:
    assert "must end in .onnx or .pt2" in refusal([str(small_weights), "-o", str(tmp_path / "a.pth")], capsys)
    (tmp_path / "there.onnx").write_text("mine")
    assert "pass --overwrite" in refusal([str(small_weights), "-o", str(tmp_path / "there.onnx")], capsys)
    assert "no such file" in refusal([str(tmp_path / "none.pth"), "-o", str(tmp_path / "a.onnx")], capsys)
    with pytest.raises(SystemExit):
        main([str(small_weights), "-o", str(tmp_path / "a.onnx"), "--size", "0x4"])
    assert (tmp_path / "there.onnx").read_text() == "mine"


def test_a_plugin_is_loaded_before_the_weights(small_weights: Path, tmp_path: Path, capsys) -> None:
    plugin = tmp_path / "my_network.py"
    plugin.write_text("raise RuntimeError('loaded')\n")
    line = refusal([str(small_weights), "-o", str(tmp_path / "a.onnx"), "--plugin", str(plugin)], capsys)
    assert "my_network.py" in line and "loaded" in line and not (tmp_path / "a.onnx").exists()


def test_random_routing_is_refused() -> None:
    options = {"type": "MambaIRv2Light", "embed_dim": 8, "depths": [1], "num_heads": [2], "window_size": 4}
    with pytest.raises(UserError, match="gumbel draws tokens at random"):
        check_exportable(build_network({**options, "routing": "gumbel"}))
    check_exportable(build_network(options))


def test_a_file_with_another_picture_is_not_written_and_the_stage_is_named(
    small_weights: Path, tmp_path: Path, capsys
) -> None:
    target = tmp_path / "wrong.onnx"

    def upside_down(*arguments: int) -> torch.Tensor:
        return inverse_orders(*arguments).flip(1)

    with mock.patch.object(portable, "_inverse_orders", upside_down):
        line = refusal([str(small_weights), "-o", str(target), "--size", "12"], capsys)
    assert "its picture is not PyTorch's (12x12: largest error" in line and "the graphs part at 'layers.0'" in line
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to(small_weights: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    line = refusal([str(small_weights), "-o", str(tmp_path / "file" / "a.onnx")], capsys)
    assert "cannot be made a folder" in line


def test_a_file_that_cannot_be_written_is_told_before_the_work(small_weights: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "folder.onnx").mkdir()
    assert "is a folder" in refusal([str(small_weights), "-o", str(tmp_path / "folder.onnx"), "--overwrite"], capsys)
    with mock.patch.object(Path, "write_bytes", side_effect=PermissionError(13, "Permission denied")):
        line = refusal([str(small_weights), "-o", str(tmp_path / "a.onnx")], capsys)
    assert "a.onnx: cannot be written (Permission denied)" in line
    assert [path.name for path in tmp_path.iterdir()] == ["folder.onnx"]


def test_networks_of_others(tmp_path: Path, capsys) -> None:
    plugin = tmp_path / "plain_network.py"
    plugin.write_text(PLAIN_NETWORKS)
    load_plugins([str(plugin)], tmp_path)
    for name in ("ExportedPlain", "ExportedBranching"):
        torch.manual_seed(0)
        save_weights(build_network({"type": name}), tmp_path / f"{name}.pth")
    arguments = ["--plugin", str(plugin), "-o"]
    assert main([str(tmp_path / "ExportedPlain.pth"), *arguments, str(tmp_path / "plain.onnx")]) == 0
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    found = load_model(tmp_path / "plain.onnx").restore(image)
    expected = load_model(tmp_path / "ExportedPlain.pth").restore(image)
    assert np.abs(found.astype(int) - expected).max() <= 1
    capsys.readouterr()
    line = refusal([str(tmp_path / "ExportedBranching.pth"), *arguments, str(tmp_path / "branching.onnx")], capsys)
    assert "ExportedBranching cannot be exported by PyTorch" in line and not (tmp_path / "branching.onnx").exists()


def test_what_agrees() -> None:
    assert Agreement((1, 3, 4, 4), 1e-5, 0.001).holds(half=False)
    assert not Agreement((1, 3, 4, 4), 2e-4, 0.001).holds(half=False)
    assert not Agreement((1, 3, 4, 4), 1e-5, -0.02).holds(half=False)
    assert Agreement((1, 3, 4, 4), 1e-2, -0.02).holds(half=True)
    assert not Agreement((1, 3, 4, 4), float("nan"), float("nan")).holds(half=True)


def test_the_first_stage_that_differs_is_named() -> None:
    ones = torch.ones(3)
    assert "'b', by 5.0e-01" in parting("abc", [ones] * 3, [ones, 1.5 * ones, 2 * ones], LARGEST_ERROR)
    assert "behind the last" in parting("a", [ones], [ones], LARGEST_ERROR)


def test_other_onnx_files_are_refused(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    shape = [1, 3, 4, 4]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "other", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(UserError, match="was not written by mambair export"):
        load_model(tmp_path / "other.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"\x00 no model")
    with pytest.raises(UserError, match="ONNX Runtime cannot load it"):
        load_model(tmp_path / "broken.onnx")


def test_settings_that_a_file_cannot_have(any_size: Path) -> None:
    with pytest.raises(UserError, match="leave --amp bf16 out"):
        load_model(any_size, amp="bf16")
    with pytest.raises(UserError, match="leave --compile out"):
        load_model(any_size, compile=True)
    with pytest.raises(UserError, match=r"device: 'cuda' is not among those of this ONNX Runtime: auto, "):
        load_model(any_size, device="cuda")
    with pytest.raises(UserError, match="leave the task out"):
        load_model(any_size, task="denoise")


def test_without_onnxruntime_the_line_that_installs_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"")
    with (
        mock.patch.object(onnx_network, "find_spec", lambda name: None),
        pytest.raises(UserError, match=r"pip install 'mambair\[export\]'"),
    ):
        load_model(tmp_path / "a.onnx")


def test_images_without_pixels_are_refused_as_ever(any_size: Path) -> None:
    with pytest.raises(UserError, match="image of shape"):
        load_model(any_size).restore(np.zeros((0, 4, 3), np.uint8))
