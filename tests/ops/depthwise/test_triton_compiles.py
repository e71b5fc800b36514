"""The depthwise convolution's kernels compile for old and new GPUs, which needs none."""

import pytest
import torch

triton = pytest.importorskip("triton")

from mambair.ops.depthwise import triton_kernels as kernels  # noqa: E402
from mambair.ops.depthwise import triton_launch as launch  # noqa: E402
from mambair.ops.depthwise import wide_kernels  # noqa: E402
from tests.ops.compiling import compiled  # noqa: E402

pytestmark = pytest.mark.skipif(
    torch.version.cuda is None or not isinstance(kernels.convolve_kernel, triton.JITFunction),
    reason="needs a PyTorch for NVIDIA GPUs, and Triton's compiler instead of its interpreter",
)

KERNELS = {
    "SiLU": (kernels.convolve_kernel, {"BIAS": True, "SILU": True, "SLOPE": False}),
    "slope of SiLU": (kernels.convolve_kernel, {"BIAS": False, "SILU": False, "SLOPE": True}),
    "gradients": (kernels.gradients_kernel, {}),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("capability", "kind", "channels"), [(70, "fp16", 72), (90, "bf16", 360), (90, "fp32", 5)])
def test_compiles(kernel: str, capability: int, kind: str, channels: int) -> None:
    function, constants = KERNELS[kernel]
    image = launch.Image.of(torch.empty(2, 64, 64, channels))
    convolves = function is kernels.convolve_kernel
    cut = launch.convolve_cut(image, 1) if convolves else launch.gradients_cut(image, 1, channels, channels)
    options = dict(cut.options)
    warps, _ = options.pop("num_warps"), options.pop("num_stages", None)
    constants = {name: value for name, value in (constants | options).items() if name in function.arg_names}
    types = dict.fromkeys(("x_ptr", "dy_ptr", "y_ptr", "dx_ptr"), f"*{kind}")
    assert compiled(function, constants, types, capability, warps)["cubin"]


WIDE = {
    "convolution": (wide_kernels.convolve_kernel, {"k": 5, "PX": 64, "BC": 32, "BIAS": True, "REVERSE": False}),
    "gradient": (wide_kernels.convolve_kernel, {"k": 5, "PX": 64, "BC": 32, "BIAS": False, "REVERSE": True}),
    "weight gradients": (wide_kernels.weight_gradients_kernel, {"k": 5, "PX": 32, "BC": 32}),
}


@pytest.mark.parametrize("kernel", WIDE)
@pytest.mark.parametrize(("capability", "kind", "vector"), [(70, "fp16", 8), (80, "bf16", 1), (90, "bf16", 4)])
def test_wide_kernels_compile(kernel: str, capability: int, kind: str, vector: int) -> None:
    function, constants = WIDE[kernel]
    types = dict.fromkeys(("x_ptr", "dy_ptr", "y_ptr"), f"*{kind}")
    assert compiled(function, constants | {"V": vector}, types, capability, 4)["cubin"]


def test_sums_compile() -> None:
    assert compiled(kernels.sum_parts_kernel, {"BP": 256, "BC": 16}, {}, 70, 8)["cubin"]


def test_wide_sums_compile() -> None:
    constants = {"KK": 25, "BP": 64, "BC": 32}
    assert compiled(wide_kernels.sum_parts_kernel, constants, {}, 90, 4)["cubin"]


def test_images_of_any_size_are_within_what_cuda_takes() -> None:
    """2^31 - 1 programs in the first dimension, 65535 in the others."""
    for height, width in ((1, 400_000), (600_000, 1), (16_000, 16_000)):
        image = launch.Image((1, height, width, 360), (height * width * 720, width * 720, 720), torch.bfloat16)
        for cut in (launch.convolve_cut(image, 1), launch.gradients_cut(image, 1, 360, 360)):
            assert cut.grid[0] < 2**31
            assert max((*cut.grid, 1, 1)[1:3]) <= 65535
