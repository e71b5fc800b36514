"""The kernels of a block's halves compile for old and new GPUs, which needs none. The interpreter accepts more."""

from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")

from mambair.ops import triton_copies as copies  # noqa: E402
from mambair.ops.launching import PreparedKernel  # noqa: E402
from mambair.ops.rssb import triton_attention as attention  # noqa: E402
from mambair.ops.rssb import triton_rows as rows  # noqa: E402
from mambair.ops.rssb import triton_weights as weights  # noqa: E402
from mambair.ops.rssb.local_key import LocalHalf  # noqa: E402
from mambair.ops.rssb.rows import MANY_PROGRAMS, Attention, Rows  # noqa: E402
from mambair.ops.rssb.weights import OwnWeights, weight_gradients  # noqa: E402
from tests.ops.compiling import compiled, stack_bytes  # noqa: E402

pytestmark = pytest.mark.skipif(
    torch.version.cuda is None or not isinstance(rows.norm_kernel, triton.JITFunction),
    reason="needs a PyTorch for NVIDIA GPUs, and Triton's compiler instead of its interpreter",
)

TILE = {"BR": 8, "BC": 256}
SIZES = {"C": 180, "CP": 184}
GATE = {"C": 72, "CP": 72, "ZS": 144, "EPS": 1e-5, "BR": 16, "BC": 128}
GELU = {"C": 60, "US": 64, "CP": 64, "BR": 32, "BC": 64}
SUM_WEIGHTS = {"C": 180, "J": 60, "BJ": 64, "BR": 4, "BK": 16, "BP": 512}
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
SMALL = {"C": 180, "S": 6, "BS": 8}

# Types of pointers that are not fp32: those that products read and write.
OF_PRODUCTS = {
    "norm": ("y_ptr",), "norm_backward": ("d_y_ptr",), "gate": ("parts_ptr", "z_ptr", "y_ptr", "gated_ptr"),
    "gate, without gradients": ("parts_ptr", "z_ptr", "y_ptr", "gated_ptr"),
    "gate_backward": ("d_gated_ptr", "y_ptr", "z_ptr", "d_y_ptr", "d_z_ptr"), "gelu": ("u_ptr", "g_ptr"),
    "gelu_backward": ("d_g_ptr", "u_ptr", "d_u_ptr"), "add_skip": ("branch_ptr",), "to_branch": ("d_branch_ptr",),
    "sums": ("u_ptr",), "gradient_sums": ("u_ptr",), "copy": ("t0_ptr", "t1_ptr"),
}  # fmt: skip
KERNELS = {
    "norm": (rows.norm_kernel, SIZES | TILE | {"EPS": 1e-5, "ONES": True}, 4),
    "norm_backward": (rows.norm_backward_kernel, SIZES | TILE | {"EPS": 1e-5, "SKIP": True}, 4),
    "norm_backward, no skip": (rows.norm_backward_kernel, SIZES | TILE | {"EPS": 1e-5, "SKIP": False}, 4),
    "gate": (rows.gate_kernel, GATE | {"PARTS": 4, "KEEP": True}, 4),
    "gate, without gradients": (rows.gate_kernel, GATE | {"PARTS": 4, "KEEP": False}, 4),
    "gate_backward": (rows.gate_backward_kernel, GATE | {"ZW": 72}, 4),
    "gelu": (rows.gelu_kernel, GELU | {"BIAS": True, "ONES": False}, 4),
    "gelu_backward": (rows.gelu_backward_kernel, GELU | {"BIAS": True}, 4),
    "add_skip": (rows.add_skip_kernel, SIZES | TILE | {"SCALE": "channel", "BIAS": True}, 4),
    "to_branch": (rows.to_branch_kernel, SIZES | TILE | {"SCALE": "image"}, 4),
    "sum_parts": (rows.sum_parts_kernel, {"C": 180, "ROWS": 3, "BP": 512, "BC": 8}, 8),
    "sums": (attention.sums_kernel, SIZES | TILE, 4),
    "gradient_sums": (attention.gradient_sums_kernel, SIZES | TILE | {"BIAS": True}, 4),
    "attention": (attention.attention_kernel, SMALL | {"BIAS": True, "BK": 8, "BC": 256}, 4),
    "attention_backward": (attention.attention_backward_kernel, SMALL | {"BK": 8, "BC": 256}, 4),
    "attention_weights": (attention.attention_weights_kernel, SMALL | {"BIAS": True, "BC": 64}, 4),
    "copy": (copies.copy_kernel, {"BLOCK": 1024}, 4),
    "sum_weights": (weights.sum_weights_kernel, SUM_WEIGHTS, 4),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("capability", "kind"), [(70, "fp16"), (90, "bf16"), (90, "fp32")])
def test_compiles(kernel: str, capability: int, kind: str) -> None:
    function, constants, warps = KERNELS[kernel]
    types = dict.fromkeys(OF_PRODUCTS.get(kernel, ()), f"*{kind}")
    assert compiled(function, constants, types, capability, warps)["cubin"]


def compiled_as_prepared(prepared: PreparedKernel, capability: int) -> dict[str, Any]:
    """With the types and constants that it is started with."""
    kernel, dtypes, options, _ = prepared.variant
    constants = dict(options)
    warps, stages = constants.pop("num_warps"), constants.pop("num_stages", 3)
    types = {name: POINTERS[dtype] for name, dtype in zip(kernel.arg_names, dtypes, strict=False)}
    return compiled(kernel, constants, types, capability, warps, stages)


@pytest.mark.parametrize("C", [60, 180, 768])
@pytest.mark.parametrize(("images", "pixels"), [(16, 4096), (4, 4096), (1, 65536)])
def test_sums_fit_in_registers(images: int, pixels: int, C: int, tmp_path: Path) -> None:
    """Whatever the tile, which depends on how much there is to sum."""
    rows, (fp32, bf16) = Rows(images, pixels, torch.device("cpu")), (torch.float32, torch.bfloat16)
    attention = Attention(rows, C, C // 30, C, True, bf16, fp32, fp32)
    sums = rows.sum_parts(C, C, 3, fp32, programs=MANY_PROGRAMS)
    for prepared in (sums, attention.sum, attention.sum_gradients, attention.weigh, attention.weigh_backward):
        assert stack_bytes(compiled_as_prepared(prepared, 90)["cubin"], tmp_path) == 0


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("C", "J"), [(180, 60), (48, 16), (96, 32), (192, 64)])
@pytest.mark.parametrize(("capability", "shared_memory"), [(80, 99), (90, 227), (120, 99)])
def test_weight_parts_fit(
    capability: int, shared_memory: int, C: int, J: int, kind: torch.dtype, tmp_path: Path
) -> None:  # fmt: skip
    """In the registers, in the least shared memory (KiB) of such GPUs; all loads are asynchronous."""
    key = LocalHalf(False, 4, 64, 64, C, J, 2, torch.float32, kind, torch.float32, 1e-5, torch.device("cpu"))
    own = weight_gradients(key)
    assert isinstance(own, OwnWeights)
    found = compiled_as_prepared(own.multiply, capability)
    assert stack_bytes(found["cubin"], tmp_path) == 0
    assert found["shared memory"] <= shared_memory * 1024
    assert "cp.async.cg" in found["ptx"]
    assert "ld.global" not in found["ptx"]
