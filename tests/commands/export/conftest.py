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


SMALL_UNET = {
    "type": "MambaIRUNet",
    "dim": 4,
    "num_blocks": [1, 0, 0, 1],
    "num_refinement_blocks": 0,
    "d_state": 2,
    "mlp_ratio": 1.0,
    "local_block": "ca",
}
SMALL_V2 = {
    "type": "MambaIRv2",
    "embed_dim": 6,
    "depths": [2],  # the second attends to shifted windows
    "num_heads": [2],
    "window_size": 4,
    "d_state": 3,
    "inner_rank": 4,
    "num_tokens": 5,
    "convffn_kernel_size": 3,
}
SMALL_V2_LIGHT = {**SMALL_V2, "type": "MambaIRv2Light", "upscale": 2, "upsampler": "pixelshuffledirect"}


def save_small(options: dict[str, object], path: Path) -> Path:
    """Weights of a network, such that every part of it shows; as they begin, the scan would hardly."""
    torch.manual_seed(0)
    network = build_network(options).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1 and "A_logs" not in name:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            elif "scale" in name:
                parameter.fill_(0.5)
    save_weights(network, path)
    return path


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of one block."""
    return save_small(SMALL, tmp_path_factory.mktemp("export") / "small.pth")


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
