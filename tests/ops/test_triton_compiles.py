"""The scans' kernels compile for old and new GPUs, which needs none. The interpreter accepts more than the compiler."""

import pytest
import torch

triton = pytest.importorskip("triton")

from mambair.ops.ss2d import triton_backward as backward  # noqa: E402
from mambair.ops.ss2d import triton_forward as forward  # noqa: E402
from mambair.ops.ss2d import triton_launch  # noqa: E402
from mambair.ops.ss2d import triton_prepare as prepare  # noqa: E402
from mambair.ops.ss2d import triton_projections as projections  # noqa: E402
from mambair.ops.ss2d.triton_plan import Launch, ScanShape, make_plan  # noqa: E402
from tests.ops.compiling import compiled  # noqa: E402

pytestmark = pytest.mark.skipif(
    torch.version.cuda is None or not isinstance(forward.scan_kernel, triton.JITFunction),
    reason="needs a PyTorch for NVIDIA GPUs, and Triton's compiler instead of its interpreter",
)

# Tensors of the inputs' type; the others are fp32, and delta is fp16 where the inputs have 16 bits.
OF_INPUTS = {
    "x_ptr", "dy_ptr", "parts_ptr", "dx_parts_ptr", "d_v_ptr", "d_bc_ptr", "tile_states_ptr", "projected_ptr",
    "d_projected_ptr", "given_ptr",
}  # fmt: skip
TILES = {"BP": 32, "BT": 8, "T": 8, "IMAGE": True, "SENSES": 2}
SCAN = {"T": 8, "IMAGE": True, "EVEN": False, "N": 10, "WIDE": False, "BE": 32}
SEQUENTIAL = SCAN | {"BN": 16}
SEQUENCE = {"IMAGE": False, "EVEN": True, "WIDE": True}
PROJECT = {"E": 72, "R": 4, "BR": 16, "BL": 64, "BE": 64}
DELTA = {"E": 72, "R": 4, "P": 24, "SLOTS": 4, "RUN": 8, "SHARING": 4, "PIXELS": 4, "BLOCK": 128}
PRODUCT = {"E": 360, "R": 12, "P": 44, "SLOTS": 4, "BR": 16, "BL": 128, "BE": 32}

# (kernel, compile-time arguments, warps); "precision" is filled in for each GPU.
KERNELS = {
    "states": (forward.scan_kernel, SEQUENTIAL | {"OUTPUTS": False, "LAST": False}, 1),
    "outputs": (forward.scan_kernel, SEQUENTIAL | {"OUTPUTS": True, "LAST": False, "BE": 64}, 1),
    "sequence": (forward.scan_kernel, SEQUENTIAL | SEQUENCE | {"OUTPUTS": True, "LAST": True}, 1),
    "pass_states": (
        forward.pass_states_kernel,
        {"N": 10, "ROWS": 10, "SENSES": 2, "BACKWARD": False, "INITIAL": False, "RUNS": 4, "AT_ONCE": 8, "BE": 32},
        4,
    ),
    "sum_parts": (forward.sum_parts_kernel, {"parts": 4, "BLOCK": 1024}, 4),
    "adjoints": (backward.chunk_adjoints_kernel, SEQUENTIAL | {"SENSES": 2}, 1),
    "gradients": (
        backward.gradients_kernel,
        SCAN | {"SENSES": 2, "SOFTPLUS": True, "ADD": True, "PRECISION": "sums"},
        1,
    ),
    "pack_parameters": (prepare.pack_parameters_kernel, {"BN": 16, "BR": 4, "BE": 32}, 1),
    "delta": (prepare.delta_kernel, DELTA | {"GIVEN": False, "SOFTPLUS": True}, 4),
    "delta given": (prepare.delta_kernel, DELTA | {"R": 0, "GIVEN": True, "SOFTPLUS": False}, 4),
    "delta product": (prepare.delta_product_kernel, PRODUCT, 4),
    "order_bc": (prepare.order_bc_kernel, TILES, 4),
    "gather_bc": (projections.gather_bc_kernel, TILES, 4),
    "dt_gradient": (projections.dt_gradient_kernel, PROJECT | {"PRECISION": "products"}, 4),
    "weight_gradient": (projections.weight_gradient_kernel, PROJECT | {"PRECISION": "products"}, 4),
    "sum_rows": (projections.sum_rows_kernel, {"LOGS": True, "BC": 128, "BE": 32}, 4),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("capability", "kind"), [(70, "fp16"), (80, "bf16"), (90, "bf16"), (90, "fp32")])
def test_compiles(kernel: str, capability: int, kind: str) -> None:
    assert stages(kernel, capability, kind)["cubin"]


@pytest.mark.parametrize("kernel", ["states", "outputs", "adjoints", "gradients"])
def test_values_stay_in_their_threads(kernel: str) -> None:
    """Also where every size is a multiple of 16, which would let neighbouring channels be loaded together."""
    assert "shfl.sync.bfly" not in stages(kernel, 90, "bf16")["ptx"]


@pytest.mark.parametrize(
    ("rank", "kind", "product"),
    [(7, torch.bfloat16, False), (8, torch.bfloat16, True), (16, torch.float16, True), (17, torch.float16, False),
     (12, torch.float32, False)],
)  # fmt: skip
@pytest.mark.parametrize("capability", [(7, 5), (8, 0)])
def test_delta_of_middle_ranks_runs_on_tensor_cores_that_take_bf16(
    rank: int, kind: torch.dtype, product: bool, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    shape = ScanShape(1, 16, 16, channels=24, groups=2, senses=2, states=4, rank=rank, image=True)
    types = triton_launch.ScanTypes(kind, None, kind, torch.float32, torch.float32)
    launch = triton_launch.delta_launch(Launch(shape, make_plan(shape, 132), 0, 2), types, torch.device("cuda", 0))
    expected = prepare.delta_product_kernel if product and capability >= (8, 0) else prepare.delta_kernel
    assert launch.variant[0] is expected


def stages(kernel: str, capability: int, kind: str) -> dict:
    """What the kernel is compiled to for inputs of this kind."""
    function, constants, warps = KERNELS[kernel]
    products = "ieee" if capability < 80 else "tf32x3" if kind == "fp32" else "tf32"
    sums = "bf16" if products == "tf32" else products
    constants = constants | {
        key: {"products": products, "sums": sums}[value] for key, value in constants.items() if key == "PRECISION"
    }
    types = dict.fromkeys(OF_INPUTS, f"*{kind}") | {"delta_ptr": "*fp32" if kind == "fp32" else "*fp16"}
    return compiled(function, constants, types, capability, warps)
