"""The kernels of window attention compile for old and new GPUs, and fit into their memory, which needs none of them."""

from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")

from mambair.ops.window_attention import triton_kernels as kernels  # noqa: E402
from mambair.ops.window_attention.triton_launch import WindowPlan, Windows  # noqa: E402
from mambair.ops.window_attention.triton_tiles import Tiles, block_warps, choose_tiles, padded_channels  # noqa: E402
from tests.ops.compiling import compiled  # noqa: E402

pytestmark = pytest.mark.skipif(
    torch.version.cuda is None or not isinstance(kernels.attention_kernel, triton.JITFunction),
    reason="needs a PyTorch for NVIDIA GPUs, and Triton's compiler instead of its interpreter",
)

# Bytes of shared memory that a program may have, by compute capability.
GPUS = {"H200": (90, 227 * 1024), "A100": (80, 163 * 1024), "RTX 40": (89, 99 * 1024), "RTX 30": (86, 99 * 1024)}
OLD_GPUS = {"V100": (70, 96 * 1024), "T4": (75, 64 * 1024)}
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
OF_INPUTS = ("qkv_ptr", "d_qkv_ptr", "y_ptr", "dy_ptr")
LIGHT, BASE = 12, 29  # channels of a published network's heads
WINDOW = {"w": 16, "L": 256, "BL": 256, "SHIFTED": True}
SMALL = {"w": 5, "L": 25, "BL": 32, "d": 12, "BD": 16, "SHIFTED": False}
Variants = dict[str, tuple[Any, dict[str, int], int]]


def variants(tiles: Tiles) -> Variants:
    """The kernels with scores that these tiles stand for, their blocks, and their warps."""
    block, warps = {"BQ": tiles.gradients, "BK": tiles.gradients}, block_warps(tiles.gradients)
    forward = {"BQ": tiles.forward, "BK": tiles.forward, "KEEP": True}
    return {
        "attention": (kernels.attention_kernel, forward, block_warps(tiles.forward)),
        "query gradients": (kernels.query_gradients_kernel, block, warps),
        "key gradients": (kernels.key_gradients_kernel, block, warps),
        "score sums": (kernels.score_sums_kernel, block, warps),
    }


def compiled_for(function: Any, constants: dict, warps: int, capability: int, kind: str) -> dict[str, Any]:
    precision = "ieee" if capability < 80 else "tf32x3" if kind == "fp32" else "tf32"
    types = dict.fromkeys(OF_INPUTS, f"*{kind}") | {"scale": "fp32", "bias_ptr": "*fp32" if kind == "fp32" else "*fp16"}
    return compiled(function, constants | {"PRECISION": precision}, types, capability, warps)


def check_every_kernel_fits(tiles: Tiles, channels: int, capability: int, kind: str, limit: int) -> None:
    padded = padded_channels(channels)
    bound = tiles.shared_memory(padded, TYPES[kind].itemsize) if capability >= 80 else limit
    assert bound <= limit
    for name, (function, blocks, warps) in variants(tiles).items():
        stages = compiled_for(function, WINDOW | {"d": channels, "BD": padded} | blocks, warps, capability, kind)
        assert stages["cubin"] and stages["shared memory"] <= bound, name
        if (capability, kind, name) == (90, "bf16", "attention"):
            # Where scores are kept in the layout of products, few instructions are shuffles; otherwise hundreds.
            assert stages["ptx"].count("shfl.sync") < 64


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
@pytest.mark.parametrize("channels", [LIGHT, BASE])
@pytest.mark.parametrize("gpu", GPUS)
def test_published_windows_compile_into_less_memory_than_there_is(gpu: str, channels: int, kind: str) -> None:
    capability, limit = GPUS[gpu]
    tiles = choose_tiles(16, channels, TYPES[kind], limit)
    assert tiles is not None
    check_every_kernel_fits(tiles, channels, capability, kind, limit)


@pytest.mark.parametrize("gpu", OLD_GPUS)
def test_old_gpus_have_room_for_light_windows(gpu: str) -> None:
    """They take PyTorch's attention nevertheless: Triton does not use their tensor cores, and its release 3.3 does not
    compile these products of fp16 for them."""
    capability, limit = OLD_GPUS[gpu]
    check_every_kernel_fits(Tiles(32, 32), LIGHT, capability, "fp32", limit)


@pytest.mark.parametrize("tiles", [Tiles(64, 64), Tiles(32, 32), Tiles(16, 16)], ids=str)
@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_smaller_tiles_compile_into_what_they_are_said_to_need(tiles: Tiles, kind: str) -> None:
    check_every_kernel_fits(tiles, BASE, 80, kind, 163 * 1024)


@pytest.mark.parametrize(
    ("kind", "channels", "kibibytes", "expected"),
    [
        ("bf16", BASE, 227, Tiles(64, 64)),
        ("bf16", BASE, 48, Tiles(64, 64)),
        ("bf16", BASE, 44, Tiles(64, 32)),
        ("bf16", 64, 99, Tiles(64, 64)),
        ("fp32", LIGHT, 64, Tiles(64, 64)),
        ("fp32", BASE, 99, Tiles(64, 64)),
        ("fp32", BASE, 64, Tiles(64, 32)),
        ("fp32", BASE, 44, Tiles(32, 32)),
        ("fp32", BASE, 8, None),
        ("fp32", 65, 227, None),
    ],
)
def test_tiles_follow_from_the_memory_there_is(kind: str, channels: int, kibibytes: int, expected: Tiles) -> None:
    assert choose_tiles(16, channels, TYPES[kind], kibibytes * 1024) == expected
    assert choose_tiles(17, channels, TYPES[kind], kibibytes * 1024) is None


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("window", [5, 7, 9, 12, 15])
def test_windows_that_do_not_fill_blocks_of_64_take_smaller_ones(window: int, kind: str) -> None:
    assert choose_tiles(window, LIGHT, TYPES[kind], 227 * 1024) == Tiles(64, 32)
    assert choose_tiles(8, LIGHT, TYPES[kind], 227 * 1024) == Tiles(64, 64)


def test_small_windows_compile() -> None:
    constants = SMALL | {"BQ": 32, "BK": 32, "KEEP": False}
    assert compiled_for(kernels.attention_kernel, constants, block_warps(32), 90, "bf16")["cubin"]


@pytest.mark.parametrize("capability", [70, 90])
def test_the_spread_of_biases_compiles(capability: int) -> None:
    constants = {"w": 5, "L": 25, "BL": 32}
    assert compiled(kernels.spread_bias_kernel, constants, {"bias_ptr": "*fp16", "factor": "fp32"}, capability, 4)[
        "cubin"
    ]


@pytest.mark.parametrize("capability", [70, 90])
def test_the_table_gradient_compiles(capability: int) -> None:
    constants = {"w": 16, "L": 256, "BW": 16}
    assert compiled(kernels.table_gradient_kernel, constants, {}, capability, 8)["cubin"]


def test_photos_of_any_size_are_within_what_cuda_takes() -> None:
    """2^31 - 1 programs in the first dimension, 65535 in the others."""
    sizes = Windows(1, 6400, 6400, heads=4, channels=16, window_size=16, shift=8, scaled_by=12)
    tiles = choose_tiles(16, LIGHT, torch.bfloat16, 227 * 1024)
    assert tiles is not None
    plan = WindowPlan(sizes, torch.bfloat16, torch.float32, torch.device("cpu"), tiles)
    for kernel in (*plan.forward_kernels, *plan.backward_kernels):
        assert kernel.grid[0] < 2**31
        assert max(kernel.grid[1:]) <= 65535
