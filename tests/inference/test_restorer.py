"""The restorer: every image type comes back as it was, enlarged; tiles, batches and memory behave."""

import functools
import gc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mambair.archs import build_network
from mambair.errors import UserError
from mambair.inference import restorer as restorer_module
from mambair.inference.graphs import KEPT_GRAPHS, WARMUP, GraphedForward
from mambair.inference.image_types import group_by_size
from mambair.inference.memory import MIN_TILE, TilePlan, free_memory, is_out_of_memory
from mambair.inference.restorer import Restorer, find_device, load_model

CPU = torch.device("cpu")


class Enlarge(nn.Module):
    """Stands for a network: repeats pixels, and notes the batches it was given."""

    size_multiple = 1
    hyperparameters: dict = {}

    def __init__(self, scale: int = 2, in_channels: int = 3, limit: int | None = None) -> None:
        super().__init__()
        self.scale, self.in_channels, self.limit = scale, in_channels, limit
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] == self.in_channels and x.dtype == torch.float32
        self.shapes.append(tuple(x.shape))
        if self.limit is not None and x.shape[0] * x.shape[2] * x.shape[3] > self.limit:
            raise torch.OutOfMemoryError("out of memory")
        return x.repeat_interleave(self.scale, dim=2).repeat_interleave(self.scale, dim=3)


def enlarged(array: np.ndarray, scale: int = 2) -> np.ndarray:
    return array.repeat(scale, axis=0).repeat(scale, axis=1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (5, 7, 1), (5, 7, 2), (5, 7, 3), (5, 7, 4), (2, 3, 4, 3)])
def test_arrays_of_all_kinds(rng: np.random.Generator, shape: tuple, dtype: type, in_channels: int) -> None:
    restorer = Restorer(Enlarge(2, in_channels), device=CPU)
    array = rng.random(shape) * 0.9 + 0.1  # what is wholly transparent is a matter of its own
    array = (array * np.iinfo(dtype).max).astype(dtype) if np.issubdtype(dtype, np.integer) else array.astype(dtype)
    restored = restorer.restore(array)
    assert restored.dtype == dtype
    wanted = np.stack([enlarged(image) for image in array]) if array.ndim == 4 else enlarged(array)
    np.testing.assert_allclose(restored, wanted, rtol=1e-6, atol=1e-3 if dtype == np.float16 else 1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pil_images(rng: np.random.Generator, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (5, 7), dtype=np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (5, 7, 4), dtype=np.uint8)).convert("RGB").convert(mode[:4])
    image.info["icc_profile"] = b"profile"
    restored = Restorer(Enlarge(), device=CPU).restore(image)
    wanted_mode = {"1": "L", "P": "RGB"}.get(mode, mode)
    assert restored.mode == wanted_mode and restored.size == (14, 10) and restored.info["icc_profile"] == b"profile"
    plain = image if mode == "I;16" else image.convert(wanted_mode)
    np.testing.assert_array_equal(np.asarray(restored), enlarged(np.asarray(plain)))


def test_pil_orientation_is_applied() -> None:
    image = Image.new("RGB", (4, 2))
    image.getexif()[0x0112] = 6
    assert Restorer(Enlarge(), device=CPU).restore(image).size == (4, 8)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 1, 4, 5), (1, 4, 4, 5)])
def test_tensors(shape: tuple, dtype: torch.dtype) -> None:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.1  # alpha 0 would hide colours
    tensor = (values * (255 if dtype == torch.uint8 else 1)).to(dtype)
    restored = Restorer(Enlarge(), device=CPU).restore(tensor)
    wanted = tensor.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)
    torch.testing.assert_close(restored, wanted, rtol=1e-2 if dtype == torch.bfloat16 else 1e-3, atol=1e-6)


def test_lists_keep_their_order_and_equal_sizes_share_a_batch(rng: np.random.Generator) -> None:
    network = Enlarge()
    images = [rng.random((height, 6, 3), dtype=np.float32) for height in (4, 4, 4, 5, 4)]
    for image, restored in zip(images, Restorer(network, device=CPU, batch=2).restore(images), strict=True):
        np.testing.assert_allclose(restored, enlarged(image), atol=1e-6)
    assert [shape[0] for shape in network.shapes] == [2, 1, 1, 1]
    assert list(group_by_size([], 2)) == []


def test_results_are_clipped_and_rounded() -> None:
    class Overshoot(Enlarge):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 3 - 1

    restored = Restorer(Overshoot(1), device=CPU).restore(np.array([[[0, 128, 255]]], np.uint8))
    np.testing.assert_array_equal(restored, [[[0, 129, 255]]])


def test_opaque_alpha_stays_exact_and_other_alpha_is_restored() -> None:
    class Darken(Enlarge):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 0.5

    restorer = Restorer(Darken(1), device=CPU)
    image = np.full((2, 2, 4), 200, np.uint8)
    assert (restorer.restore(image)[:, :, 3] == 200).all() and (restorer.restore(image)[:, :, :3] == 100).all()
    image[0, 0, 3] = 0
    assert restorer.restore(image)[1, 1, 3] == 100


@pytest.mark.parametrize(
    "image",
    [
        "photo.png",
        np.zeros((2, 2), np.int32),
        np.zeros((2, 2, 5), np.uint8),
        np.zeros((0, 2, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.full((2, 2), 100.0),
        np.full((2, 2), np.nan),
        torch.zeros(2, 2),
        torch.zeros(3, 2, 2, dtype=torch.int64),
        torch.full((3, 2, 2), -2.0),
        Image.new("F", (2, 2)),
    ],
)
def test_what_cannot_be_restored_is_refused_with_a_remedy(image) -> None:
    with pytest.raises(UserError, match=r"pass|expected|convert"):
        Restorer(Enlarge(), device=CPU).restore(image)


@pytest.mark.parametrize("tile", [None, 16, "published", "auto"])
@pytest.mark.parametrize("ensemble", [False, True])
def test_tiles_and_ensemble_change_nothing_for_a_pointwise_network(rng, tile, ensemble: bool) -> None:
    image = rng.integers(0, 256, (37, 50, 3), dtype=np.uint8)
    restorer = Restorer(Enlarge(), device=CPU, tile=tile, ensemble=ensemble, batch=3)
    np.testing.assert_array_equal(restorer.restore(image), enlarged(image))


def test_auto_restores_whole_what_fits_and_tiles_what_does_not(rng, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Enlarge()
    restorer = Restorer(network, device=CPU, batch=2)
    images = rng.random((2, 100, 80, 3), dtype=np.float32)
    restorer.restore(images)
    assert network.shapes == [(2, 3, 100, 80)]
    for pixels, shape in {100 * 80: (1, 3, 100, 80), 60 * 60: (1, 3, 56, 56), 10: (1, 3, MIN_TILE, MIN_TILE)}.items():
        network.shapes.clear()
        monkeypatch.setattr(TilePlan, "affordable_pixels", lambda plan, pixels=pixels: pixels)
        np.testing.assert_allclose(restorer.restore(images)[1], enlarged(images[1]), atol=1e-6)
        assert set(network.shapes) == {shape}


def test_auto_halves_tiles_until_they_fit_and_remembers(rng) -> None:
    network = Enlarge(limit=50 * 50)
    restorer = Restorer(network, device=CPU)
    image = rng.random((128, 128, 3), dtype=np.float32)
    np.testing.assert_allclose(restorer.restore(image), enlarged(image), atol=1e-6)
    assert [shape[2] for shape in network.shapes[:3]] == [128, 64, 32]
    tried = len(network.shapes)
    restorer.restore(image)
    assert {shape[2] for shape in network.shapes[tried:]} == {32}


def test_memory_that_never_suffices_is_a_user_error() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    for tile, remedy in {"auto": f"tiles of {MIN_TILE}", 48: "smaller number", None: "tile 'auto'"}.items():
        with pytest.raises(UserError, match=remedy):
            Restorer(Enlarge(limit=10), device=CPU, tile=tile).restore(image)


def test_other_errors_of_a_network_are_not_taken_for_a_lack_of_memory() -> None:
    class Broken(Enlarge):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("shapes do not match")

    for tile in ("auto", 16):
        with pytest.raises(RuntimeError, match="shapes"):
            Restorer(Broken(), device=CPU, tile=tile).restore(np.zeros((4, 4), np.uint8))
    assert is_out_of_memory(MemoryError()) and not is_out_of_memory(RuntimeError("shapes"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"))
    assert free_memory(CPU) > 0


@pytest.mark.parametrize(
    "settings", [{"tile": 0}, {"tile": "big"}, {"tile": 8, "overlap": 8}, {"batch": 0}, {"amp": "half"}]
)
def test_wrong_settings_are_refused(settings: dict) -> None:
    with pytest.raises(UserError, match=next(iter(reversed(settings)))):
        Restorer(Enlarge(), device=CPU, **settings)


def test_networks_of_other_channels_are_refused() -> None:
    with pytest.raises(UserError, match="6 channels"):
        Restorer(Enlarge(in_channels=6), device=CPU)


def test_devices() -> None:
    assert find_device("cpu") == CPU
    assert find_device("auto").type in ("cpu", "cuda")
    for name in ("gpu", "cuda:99"):
        with pytest.raises(UserError, match="device"):
            find_device(name)


def test_amp_computes_in_bf16_and_returns_float32() -> None:
    class Multiply(Enlarge):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert torch.matmul(x, x.transpose(2, 3)).dtype == torch.bfloat16
            return super().forward(x)

    assert Restorer(Multiply(), device=CPU, amp="bf16").restore(torch.rand(3, 4, 4)).dtype == torch.float32


def test_a_compiled_network_gives_the_same(rng, monkeypatch: pytest.MonkeyPatch) -> None:
    # The backend "eager" needs no C++ compiler; what is tested is that the compiled network is the one that runs.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    image = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Restorer(nn_scale(), device=CPU, compile=True).restore(image), image)


def test_no_code_is_made_for_the_images_that_measure_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> Callable:
        compiled.append(tuple(inputs[-1].shape))
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    restorer = Restorer(nn_scale(), device=CPU, compile=True)
    monkeypatch.setattr(restorer, "_forward", None)  # no graph takes them for the first images of a size
    restorer._plan._run(torch.zeros(1, 3, 8, 8))
    assert not compiled
    monkeypatch.undo()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    restorer.restore(torch.zeros(3, 5, 7))
    assert len(compiled) == 1


def test_a_compiled_network_is_called_through_its_graphs(rng, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[torch.Size] = []

    class Recorded(GraphedForward):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            called.append(x.shape)
            return super().__call__(x)

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    monkeypatch.setattr("mambair.inference.restorer.GraphedForward", Recorded)
    image = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Restorer(nn_scale(), device=CPU, compile=True, tile=None).restore(image)
    assert called == [(1, 3, 5, 7)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_replayed_graphs_give_what_the_network_gives(rng) -> None:
    network = build_network({"type": "MambaIR", "embed_dim": 12, "depths": [1], "d_state": 4}).cuda().eval()
    graphed = GraphedForward(network)
    shapes = [(1, 3, side, 16) for side in range(8, 8 + KEPT_GRAPHS + 1)]  # one more than are kept
    with torch.inference_mode():
        for shape in shapes * (WARMUP + 3):
            x = torch.from_numpy(rng.random(shape, dtype=np.float32)).cuda()
            torch.testing.assert_close(graphed(x), network(x))
    assert len(graphed._graphs) == KEPT_GRAPHS
    assert None not in graphed._graphs.values()


def nn_scale() -> nn.Module:
    """A network without state of its own, which torch.compile can trace."""
    network = nn.Conv2d(3, 3, 1, bias=False)
    nn.init.dirac_(network.weight)
    network.scale, network.in_channels, network.size_multiple, network.hyperparameters = 1, 3, 1, {}
    return network


def test_load_model_names_a_missing_file(tmp_path) -> None:
    with pytest.raises(UserError, match=r"gone\.pth"):
        load_model(tmp_path / "gone.pth")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_memory_is_measured_and_running_out_of_it_halves_the_tiles(rng) -> None:
    device = find_device("cuda")
    network = Enlarge()
    image = rng.random((3000, 4000, 3), dtype=np.float32)
    restorer = Restorer(network, device=device)
    np.testing.assert_allclose(restorer.restore(image), enlarged(image), atol=1e-6)
    assert (1, 3, 3000, 4000) in network.shapes  # it fits whole, beside two pairs of probes
    assert len(network.shapes) == 5
    network.shapes.clear()
    total = torch.cuda.get_device_properties(device).total_memory
    gc.collect()
    torch.cuda.empty_cache()
    held = torch.cuda.memory_reserved(device)  # by the libraries' workspaces, say, which earlier tests leave
    # Free memory does not show this limit, so the first attempt truly runs out of it.
    torch.cuda.set_per_process_memory_fraction((held + 3e8) / total)
    try:
        np.testing.assert_allclose(restorer.restore(image), enlarged(image), atol=1e-6)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    sides = [max(shape[2:]) for shape in network.shapes]
    assert sides[0] == 4000 and sides[-1] < 3000


class Hot(nn.Module):
    """Doubles an image by way of numbers that 16 bits do not hold where it is bright."""

    scale, in_channels, size_multiple = 1, 3, 1

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Conv2d(3, 3, 1, groups=3, bias=False)
        nn.init.constant_(self.up.weight, 6e4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(x + x) / 6e4


def test_what_overflows_in_fp16_is_computed_again(caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    monkeypatch.setattr(restorer_module, "autocast_dtype", lambda amp, device: torch.float16)  # as on a GPU
    restorer = Restorer(Hot(), device=CPU, amp="fp16", tile=8, overlap=0)
    image = torch.full((3, 8, 16), 0.25)
    image[:, :, 8:] = 0.45
    dark = restorer.restore(image[:, :, :8])
    assert "computed again" not in caplog.text and dark.allclose(torch.tensor(0.5), atol=1e-3)
    image[:, 0, 8] = 0.9
    restored = restorer.restore(image)
    assert caplog.text.count("it is computed again in fp32") == 1  # the tile, not the photo
    assert restored[:, 0, 8].eq(1).all() and restored[:, 1:, 8:].allclose(torch.tensor(0.9), atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("amp", ["none", "bf16"])
def test_a_network_on_a_gpu_gives_what_the_cpu_gives(rng, amp: str) -> None:
    torch.manual_seed(0)
    network = build_network({"type": "MambaIR", "embed_dim": 12, "depths": [1], "d_state": 4})
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    wanted = Restorer(network, device=CPU).restore(image)
    restored = Restorer(network, device=find_device("cuda"), amp=amp, tile="auto").restore(image)
    assert np.abs(restored.astype(int) - wanted).max() <= (1 if amp == "none" else 4)


def test_pil_images_of_inks_become_srgb_without_the_profile_of_the_inks() -> None:
    image = Image.new("CMYK", (7, 5), (255, 0, 0, 0))
    image.info["icc_profile"] = bytes(16) + b"CMYK" + bytes(108)  # too damaged to convert by
    restored = Restorer(Enlarge(2, 3), device=CPU).restore(image)
    assert restored.mode == "RGB" and "icc_profile" not in restored.info
    assert restored.getpixel((0, 0)) == (0, 255, 255)
