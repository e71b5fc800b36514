"""MambaIRv2 restores as MambaIR does: whole, in tiles, by the ensemble, always the same."""

import numpy as np
import pytest
import torch

from mambair.archs import build_network, save_weights
from mambair.inference.restorer import load_model

OPTIONS = {
    "type": "MambaIRv2Light", "upscale": 2, "embed_dim": 8, "depths": [2], "num_heads": [2], "d_state": 2,
    "window_size": 8, "inner_rank": 2, "num_tokens": 4, "mlp_ratio": 1.0, "upsampler": "pixelshuffledirect",
}  # fmt: skip


@pytest.fixture
def path(tmp_path):
    torch.manual_seed(0)
    save_weights(build_network(OPTIONS), tmp_path / "net.pth")
    return tmp_path / "net.pth"


@pytest.mark.parametrize("options", [{}, {"tile": 32}, {"ensemble": True}], ids=str)
def test_an_image_is_restored_and_always_the_same(path, options):
    image = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)
    model = load_model(path, device="cpu", **options)
    restored = model.restore(image)
    assert restored.shape == (90, 140, 3) and restored.dtype == np.uint8
    assert np.array_equal(model.restore(image), restored)


def test_tiles_are_multiples_of_the_window():
    assert build_network(OPTIONS).size_multiple == 8
