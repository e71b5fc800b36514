"""The kernels of window attention compile for old and new GPUs, which needs none."""

import pytest
import torch

triton = pytest.importorskip("triton")

from mambair.ops.window_attention import triton_kernels as kernels  # noqa: E402
from mambair.ops.window_attention import triton_launch as launch  # noqa: E402
from tests.ops.compiling import compiled  # noqa: E402

pytestmark = pytest.mark.skipif(
    torch.version.cuda is None or not isinstance(kernels.attention_kernel, triton.JITFunction),
    reason="needs a PyTorch for NVIDIA GPUs, and Triton's compiler instead of its interpreter",
)

OF_INPUTS = ("qkv_ptr", "d_qkv_ptr", "y_ptr", "dy_ptr")
WINDOW = {"w": 16, "L": 256, "BL": 256, "d": 29, "BD": 32, "SHIFTED": True}
SMALL = {"w": 5, "L": 25, "BL": 32, "d": 12, "BD": 16, "SHIFTED": False}
KERNELS = {
    "attention": (kernels.attention_kernel, WINDOW | {"BQ": 64, "BK": 64, "KEEP": True}, 4),
    "small windows": (kernels.attention_kernel, SMALL | {"BQ": 32, "BK": 32, "KEEP": False}, 4),
    "gradients": (kernels.gradients_kernel, WINDOW | {"BK": 32}, 8),
    "score sums": (kernels.score_sums_kernel, WINDOW | {"BQ": 32}, 8),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("capability", "kind"), [(80, "bf16"), (90, "bf16"), (90, "fp32")])
def test_compiles_and_fits_into_shared_memory(kernel: str, capability: int, kind: str) -> None:
    """GPUs before 8.0 have no tensor cores that hold such tiles: they take PyTorch's attention."""
    function, constants, warps = KERNELS[kernel]
    constants = constants | {"PRECISION": "tf32x3" if kind == "fp32" else "tf32"}
    types = dict.fromkeys(OF_INPUTS, f"*{kind}") | {"scale": "fp32", "bias_ptr": "*fp32" if kind == "fp32" else "*fp16"}
    stages = compiled(function, constants, types, capability, warps)
    dtype = torch.float32 if kind == "fp32" else torch.bfloat16
    assert stages["cubin"] and stages["shared memory"] <= launch.shared_memory_bound(constants["d"], dtype)
    if (capability, kind, kernel) == (90, "bf16", "attention"):
        # Where scores are kept in the layout of products, few instructions are shuffles; otherwise hundreds.
        assert stages["ptx"].count("shfl.sync") < 64


@pytest.mark.parametrize("capability", [70, 90])
def test_the_spread_of_biases_compiles(capability: int) -> None:
    constants = {"w": 5, "L": 25, "BL": 32}
    assert compiled(kernels.spread_bias_kernel, constants, {"bias_ptr": "*fp16", "factor": "fp32"}, capability, 4)[
        "cubin"
    ]


@pytest.mark.parametrize("capability", [70, 90])
def test_the_table_gradient_compiles(capability: int) -> None:
    constants = {"w": 16, "L": 256, "BW": 16}
    assert compiled(kernels.table_gradient_kernel, constants, {}, capability, 4)["cubin"]
