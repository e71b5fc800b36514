"""A small network and its files, exported once for all tests of a process."""

from pathlib import Path

import pytest
import torch

from mambair.archs import build_network
from mambair.commands.export.command import main
from mambair.weights.loading import save_weights

SMALL = {
    "type": "MambaIR",
    "upscale": 2,
    "embed_dim": 8,
    "depths": [1],
    "d_state": 3,
    "mlp_ratio": 1.2,
    "upsampler": "pixelshuffledirect",
}


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of one block, with weights that let every part of it show."""
    torch.manual_seed(0)
    network = build_network(SMALL).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1 and "A_logs" not in name:  # as they begin, the scan would hardly show
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    path = tmp_path_factory.mktemp("export") / "small.pth"
    save_weights(network, path)
    return path


@pytest.fixture(scope="session")
def any_size(small_weights: Path) -> Path:
    """The network's file for any size."""
    target = small_weights.with_name("any_size.onnx")
    assert main([str(small_weights), "-o", str(target)]) == 0
    return target


@pytest.fixture(scope="session")
def one_size(small_weights: Path) -> Path:
    """The network's file for 24 x 16 pixels (width x height), in half precision."""
    target = small_weights.with_name("one_size.onnx")
    assert main([str(small_weights), "-o", str(target), "--size", "24x16", "--fp16"]) == 0
    return target
