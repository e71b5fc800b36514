import pytest
import torch

from mambair.archs import build_network, save_weights

spandrel = pytest.importorskip("spandrel")
from mambair.integrations.spandrel import install  # noqa: E402 (needs spandrel)

LIGHT = {"type": "MambaIR", "upscale": 3, "embed_dim": 12, "depths": [1, 1], "d_state": 3, "mlp_ratio": 1.2}
LIGHT |= {"upsampler": "pixelshuffledirect"}
GRAY = LIGHT | {"upscale": 1, "in_chans": 1, "upsampler": ""}
UNET = {"type": "MambaIRUNet", "dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "mlp_ratio": 1.5}
V2 = {
    "type": "MambaIRv2", "upscale": 4, "embed_dim": 12, "depths": [2, 1], "num_heads": [2, 3], "d_state": 3,
    "window_size": 4, "inner_rank": 3, "num_tokens": 5, "mlp_ratio": 1.5, "upsampler": "nearest+conv",
}  # fmt: skip


@pytest.fixture(scope="module")
def registry():
    """spandrel's main registry as it is after install()."""
    copy = spandrel.MAIN_REGISTRY.copy()
    install(copy)
    install(copy)  # changes nothing
    return copy


@pytest.mark.parametrize(
    ("options", "purpose", "scale", "channels", "multiple"),
    [(LIGHT, "SR", 3, 3, 1), (GRAY, "Restoration", 1, 1, 1), (UNET, "Restoration", 1, 3, 8), (V2, "SR", 4, 3, 1)],
    ids=["light", "gray", "unet", "v2"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_detected_and_loaded(tmp_path, registry, options, purpose, scale, channels, multiple, suffix):
    torch.manual_seed(0)
    network = build_network(options).eval()
    path = tmp_path / f"net{suffix}"
    save_weights(network, path)
    loaded = spandrel.ModelLoader(registry=registry).load_from_file(path)
    assert loaded.architecture.id == options["type"]
    assert (loaded.purpose, loaded.scale) == (purpose, scale)
    assert (loaded.input_channels, loaded.output_channels) == (channels, channels)
    assert (loaded.size_requirements.multiple_of, loaded.size_requirements.minimum) == (multiple, 0)
    x = torch.rand(1, channels, 9, 14)
    with torch.no_grad():
        assert torch.allclose(loaded(x), network(x).clamp(0, 1), atol=1e-6)


def test_bfloat16_stays_close(tmp_path, registry):
    torch.manual_seed(0)
    network = build_network(LIGHT).eval()
    save_weights(network, tmp_path / "net.pth")
    loaded = spandrel.ModelLoader(registry=registry).load_from_file(tmp_path / "net.pth").to(torch.bfloat16)
    x = torch.rand(1, 3, 9, 14)
    with torch.no_grad():
        assert (loaded(x.bfloat16()).float() - network(x).clamp(0, 1)).abs().max() < 0.05


def test_published_layouts_are_detected(registry):
    import gzip
    import json
    from pathlib import Path

    folder = Path(__file__).parents[1] / "data" / "golden"
    files = [folder / name for name in ("state_layouts.json.gz", "state_layouts_v2.json.gz")]
    for layout in (each for file in files for each in json.loads(gzip.decompress(file.read_bytes())).values()):
        state = {key: torch.empty(shape, device="meta") for key, shape in layout["state"].items()}
        found = next(support for support in registry.architectures("detection") if support.detect(state))
        assert found.architecture.id == layout["options"]["type"].removesuffix("Light")


def test_main_registry_by_default():
    install()
    assert "MambaIR" in spandrel.MAIN_REGISTRY and "MambaIRUNet" in spandrel.MAIN_REGISTRY
