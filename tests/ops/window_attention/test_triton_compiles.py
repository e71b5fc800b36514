"""The kernels of window attention compile for old and new GPUs, which needs none."""

import pytest
import torch

triton = pytest.importorskip("triton")

from mambair.ops.window_attention import triton_kernels as kernels  # noqa: E402
from tests.ops.compiling import compiled  # noqa: E402

pytestmark = pytest.mark.skipif(
    torch.version.cuda is None or not isinstance(kernels.attention_kernel, triton.JITFunction),
    reason="needs a PyTorch for NVIDIA GPUs, and Triton's compiler instead of its interpreter",
)

OF_INPUTS = ("qkv_ptr", "d_qkv_ptr", "y_ptr", "dy_ptr")
WINDOW = {"w": 16, "L": 256, "BL": 256, "d": 29, "BD": 32}
SMALL = {"w": 5, "L": 25, "BL": 32, "d": 12, "BD": 16}
KERNELS = {
    "attention": (kernels.attention_kernel, WINDOW | {"BQ": 64, "KEEP": True}, 4),
    "small windows": (
        kernels.attention_kernel,
        SMALL | {"BQ": 32, "KEEP": False},
        4,
    ),
    "gradients": (kernels.gradients_kernel, WINDOW | {"BK": 64}, 8),
    "score sums": (kernels.score_sums_kernel, WINDOW | {"BQ": 64}, 8),
    "table": (kernels.table_gradient_kernel, {"w": 16, "L": 256, "BW": 16}, 4),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("capability", "kind"), [(70, "fp16"), (80, "bf16"), (90, "bf16"), (90, "fp32")])
def test_compiles(kernel: str, capability: int, kind: str) -> None:
    function, constants, warps = KERNELS[kernel]
    if kernel != "table":
        constants = constants | {"PRECISION": "ieee" if capability < 80 else "tf32x3" if kind == "fp32" else "tf32"}
    types = dict.fromkeys(OF_INPUTS, f"*{kind}") | {"scale": "fp32"}
    assert compiled(function, constants, types, capability, warps)["cubin"]
