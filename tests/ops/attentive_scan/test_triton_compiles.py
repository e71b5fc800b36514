"""attentive_scan's own kernels compile for old and new GPUs, which needs none."""

import pytest
import torch

triton = pytest.importorskip("triton")

from mambair.ops.attentive_scan import triton_kernels as kernels  # noqa: E402
from tests.ops.compiling import compiled  # noqa: E402

pytestmark = pytest.mark.skipif(
    torch.version.cuda is None or not isinstance(kernels.move_rows_kernel, triton.JITFunction),
    reason="needs a PyTorch for NVIDIA GPUs, and Triton's compiler instead of its interpreter",
)

OF_INPUTS = ("source_ptr", "target_ptr", "projected_ptr", "d_projected_ptr", "prompts_ptr")
KERNELS = {
    "gather": (kernels.move_rows_kernel, {"BACK": False, "BR": 64, "BD": 64}),
    "back": (kernels.move_rows_kernel, {"BACK": True, "BR": 16, "BD": 256}),
    "add": (kernels.add_prompts_kernel, {"BR": 128, "BN": 16}),
    "gradients": (kernels.prompt_gradients_kernel, {"BR": 64, "BT": 64, "BN": 16}),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("capability", "kind"), [(70, "fp16"), (80, "bf16"), (90, "bf16"), (90, "fp32")])
def test_compiles(kernel: str, capability: int, kind: str) -> None:
    function, constants = KERNELS[kernel]
    if kernel == "gradients":
        constants = constants | {"PRECISION": "ieee" if capability < 80 else "tf32x3" if kind == "fp32" else "tf32"}
    types = dict.fromkeys(OF_INPUTS, f"*{kind}") | {"rows_ptr": "*i64", "tokens_ptr": "*i64"}
    assert compiled(function, constants, types, capability, 4)["cubin"]
