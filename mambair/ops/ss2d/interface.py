"""ss2d_scan: checks its arguments and hands them to a backend.

Shapes: B batch, H x W pixels, D inner channels, K directions, R rank of delta, N states.
"""

from torch import Tensor

from mambair.errors import UserError
from mambair.ops.backends import FUNCTIONS, find_backend


def ss2d_scan(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    directions: int = 4,
    backend: str = "auto",
) -> Tensor:
    """The 2-D selective scan of an image: one selective scan per direction with weights of its own, summed.

    (The paper, Section 3.5.) For direction k, (dt, B, C) = x_proj_weight[k] x at every pixel,
    delta = softplus(dt_projs_weight[k] dt + dt_projs_bias[k]), A = -exp(A_logs) and D = Ds; then
    `selective_scan` runs over the pixels in the direction's order.

    Directions, in the order of the parameters' first dimension:
        4 (the network's): row by row; column by column; row by row reversed; column by column reversed.
        2 (the paper's Table 2, top left to bottom right and back): row by row; row by row reversed.
        1 (the paper's Table 2, top left to bottom right): row by row.

    Arguments, all real floating point and on one device:
        x: (B, H, W, D), any strides.  x_proj_weight: (K, R + 2N, D), rows in the order dt, B, C.
        dt_projs_weight: (K, D, R).  dt_projs_bias: (K, D).  A_logs: (K D, N).  Ds: (K D,).
        backend: "auto", "reference", "portable", "numba", "triton" or "mamba_ssm"; "auto" obeys MAMBAIR_SCAN_BACKEND.

    Returns (B, H, W, D) in x's type. The scan computes in float32, or in float64 if x is float64, also under
    autocast. Gradients reach every tensor argument.

    Raises UserError for shapes that do not fit and for a named backend that cannot run.
    """
    _check(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds, directions)
    found = find_backend("ss2d_scan", backend, x.device.type, x.device.index, x.dtype)
    return FUNCTIONS[found](x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds, directions)


def _check(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    directions: int,
) -> None:
    if directions not in (1, 2, 4):
        raise UserError(f"ss2d_scan: directions must be 1, 2 or 4, got {directions}")
    if x.dim() != 4 or 0 in x.shape:
        raise UserError(f"ss2d_scan: x must be (B, H, W, D) and not empty, got {tuple(x.shape)}")
    if A_logs.dim() != 2 or dt_projs_weight.dim() != 3:
        raise UserError(
            f"ss2d_scan: A_logs must be (K D, N) and dt_projs_weight (K, D, R), "
            f"got {tuple(A_logs.shape)} and {tuple(dt_projs_weight.shape)}"
        )
    channels, states, rank = x.shape[3], A_logs.shape[1], dt_projs_weight.shape[2]
    if min(states, rank) < 1:
        raise UserError(f"ss2d_scan: states and rank must be at least 1, got N = {states} and R = {rank}")
    expected = {
        "x": (x, tuple(x.shape)),
        "x_proj_weight": (x_proj_weight, (directions, rank + 2 * states, channels)),
        "dt_projs_weight": (dt_projs_weight, (directions, channels, rank)),
        "dt_projs_bias": (dt_projs_bias, (directions, channels)),
        "A_logs": (A_logs, (directions * channels, states)),
        "Ds": (Ds, (directions * channels,)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise UserError(
                f"ss2d_scan: {name} must be {shape} for {directions} directions, {channels} channels, "
                f"{states} states and rank {rank}, got {tuple(tensor.shape)}"
            )
        if not tensor.is_floating_point():
            raise UserError(f"ss2d_scan: {name} must be real floating point, got {tensor.dtype}")
        if tensor.device != x.device:
            raise UserError(f"ss2d_scan: {name} is on {tensor.device} and x on {x.device}; move them together")
