"""attentive_scan in standard operators, for devices without kernels of their own and for export.

Shapes: B batch, L places, D inner channels, R rank of delta, N states, T tokens.
"""

from torch import Tensor

from mambair.ops.attentive_scan.reference import attentive_scan_reference
from mambair.ops.selective_scan.portable import selective_scan_portable, unavailable_reason

__all__ = ["attentive_scan_portable", "unavailable_reason"]


def attentive_scan_portable(
    x: Tensor,
    tokens: Tensor,
    policy: Tensor | None,
    prompts: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
) -> Tensor:
    """See `attentive_scan`: the definition but for the scan in it."""
    parameters = (prompts, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    return attentive_scan_reference(x, tokens, policy, *parameters, scan=selective_scan_portable)
