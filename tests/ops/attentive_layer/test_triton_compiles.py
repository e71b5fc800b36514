"""The kernels of an attentive layer compile for old and new GPUs, which needs none. The interpreter accepts more."""

import pytest
import torch

triton = pytest.importorskip("triton")

from mambair.ops.attentive_layer import triton_kernels as rows  # noqa: E402
from mambair.ops.attentive_layer import triton_order as order  # noqa: E402
from tests.ops.compiling import compiled  # noqa: E402

pytestmark = pytest.mark.skipif(
    torch.version.cuda is None or not isinstance(rows.add_kernel, triton.JITFunction),
    reason="needs a PyTorch for NVIDIA GPUs, and Triton's compiler instead of its interpreter",
)

TILE = {"BR": 8, "BC": 256}
GATE = {"G": 24, "US": 48, "BR": 64, "BC": 32}
LOCAL = {"F": 348, "CP": 352, "BR": 4, "BC": 512}
ROUTE = {"T": 60, "TP": 64, "NOISE": True, "BR": 32, "BC": 64}
ORDER = {"E": 174, **TILE}

# Name -> kernel, compile-time arguments, pointers that are neither fp32 nor what products read and write.
KERNELS = {
    "add": (rows.add_kernel, {"C": 174, "CP": 176, "BIAS": True, "OTHER": True, **TILE}, {}),
    "add_backward": (rows.add_backward_kernel, {"C": 174, "CP": 176, "EPS": 1e-5, "OTHER": True, **TILE}, {}),
    "gate_norm": (rows.gate_norm_kernel, GATE | {"EPS": 1e-5}, {}),
    "gate_norm_backward": (rows.gate_norm_backward_kernel, GATE | {"EPS": 1e-5}, {}),
    "gate_product": (rows.gate_product_kernel, GATE | {"CP": 32}, {}),
    "gate_product_backward": (rows.gate_product_backward_kernel, GATE | {"CP": 32}, {}),
    "local_sum": (rows.local_sum_kernel, LOCAL | {"GS": 352}, {}),
    "local_again": (rows.local_again_kernel, LOCAL | {"US": 352}, {}),
    "local_sum_backward": (rows.local_sum_backward_kernel, LOCAL | {"US": 352, "DS": 352, "MORE": True}, {}),
    "route": (order.route_kernel, ROUTE, {"tokens_ptr": "*i16"}),
    "route_backward": (order.route_backward_kernel, ROUTE, {}),
    "ordered gate": (order.gate_kernel, ORDER | {"EP": 176}, {"order_ptr": "*i64"}),
    "ordered gate_backward": (order.gate_backward_kernel, ORDER | {"EP": 176}, {"order_ptr": "*i64"}),
    "ordered norm": (order.norm_kernel, ORDER | {"YP": 176, "EPS": 1e-5}, {"order_ptr": "*i64"}),
    "ordered norm_backward": (order.norm_backward_kernel, ORDER | {"YP": 176, "EPS": 1e-5}, {"order_ptr": "*i64"}),
}
OF_PRODUCTS = (
    "branch_ptr", "d_y_ptr", "u_ptr", "h_ptr", "d_h_ptr", "d_u_ptr", "local_ptr", "y_ptr", "d_local_ptr", "g_ptr",
    "d_more_ptr", "logits_ptr", "d_policy_ptr", "d_logits_ptr", "inner_ptr", "sorted_ptr", "d_sorted_ptr",
    "d_inner_ptr",
)  # fmt: skip


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("capability", "kind"), [(70, "fp16"), (90, "bf16"), (90, "fp32")])
def test_compiles(kernel: str, capability: int, kind: str) -> None:
    function, constants, others = KERNELS[kernel]
    types = dict.fromkeys(OF_PRODUCTS, f"*{kind}") | others
    assert compiled(function, constants, types, capability, 4)["cubin"]
