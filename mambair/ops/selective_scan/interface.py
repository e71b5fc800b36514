"""selective_scan: checks its arguments and hands them to a backend.

Shapes: B batch, D channels, L length, N states, G groups of channels that share B and C.
"""

from torch import Tensor

from mambair.errors import UserError
from mambair.ops.backends import FUNCTIONS, find_backend


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """The selective state-space recurrence over the last dimension, with the contract of mamba-ssm.

    With d = delta + delta_bias, or softplus of it, for every channel and every state (the paper, Eq. 3; zero-order
    hold for A, Euler's rule for B):

        h[t] = exp(d[t] A) h[t-1] + d[t] B[t] u[t],   h[-1] = 0
        y[t] = sum over states of C[t] h[t] + D u[t],  times silu(z[t]) if z is given

    Arguments, all real floating point and on one device:
        u, delta: (B, D, L).  A: (D, N).  B, C: (B, G, N, L), or (B, N, L) for one group; G divides D and channel d
        belongs to group d // (D / G).  D, delta_bias: (D,).  z: (B, D, L).
        backend: "auto", "reference", "portable", "numba", "triton" or "mamba_ssm"; "auto" obeys MAMBAIR_SCAN_BACKEND.

    Returns y (B, D, L) in u's type, or (y, h[L-1]) with the state (B, D, N) in the type computed in if
    `return_last_state`. Computes in float32, or in float64 if u is float64, also under autocast. Gradients reach
    every tensor argument.

    Raises UserError for shapes that do not fit and for a named backend that cannot run.
    """
    if B.dim() == 3:
        B = B.unsqueeze(1)
    if C.dim() == 3:
        C = C.unsqueeze(1)
    _check(u, delta, A, B, C, D, z, delta_bias)
    found = find_backend("selective_scan", backend, u.device.type, u.device.index, u.dtype)
    return FUNCTIONS[found](u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    if u.dim() != 3:
        raise UserError(f"selective_scan: u must be (B, D, L), got {tuple(u.shape)}")
    if A.dim() != 2:
        raise UserError(f"selective_scan: A must be (D, N), got {tuple(A.shape)}")
    if B.dim() != 4:
        raise UserError(f"selective_scan: B must be (B, G, N, L) or (B, N, L), got {tuple(B.shape)}")
    batch, channels, length = u.shape
    groups, states = B.shape[1], A.shape[1]
    if 0 in (batch, channels, length, groups, states):
        raise UserError(f"selective_scan: no dimension may be empty, got u {tuple(u.shape)} and A {tuple(A.shape)}")
    if channels % groups:
        raise UserError(f"selective_scan: the {groups} groups of B must divide the {channels} channels of u")
    expected = {
        "delta": (delta, (batch, channels, length)),
        "A": (A, (channels, states)),
        "B": (B, (batch, groups, states, length)),
        "C": (C, (batch, groups, states, length)),
        "D": (D, (channels,)),
        "z": (z, (batch, channels, length)),
        "delta_bias": (delta_bias, (channels,)),
    }
    if not u.is_floating_point():
        raise UserError(f"selective_scan: u must be floating point, got {u.dtype}")
    for name, (tensor, shape) in expected.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise UserError(f"selective_scan: {name} must be {shape} to fit u and A, got {tuple(tensor.shape)}")
        if not tensor.is_floating_point():
            raise UserError(f"selective_scan: {name} must be real floating point, got {tensor.dtype}")
        if tensor.device != u.device:
            raise UserError(f"selective_scan: {name} is on {tensor.device} and u on {u.device}; move them together")
