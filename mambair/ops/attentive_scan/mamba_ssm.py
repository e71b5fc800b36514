"""attentive_scan in the published formulation, by mamba-ssm's CUDA kernel: a baseline for the other backends."""

from typing import Any

from torch import Tensor

from mambair.ops.attentive_scan.operands import Operands
from mambair.ops.attentive_scan.reference import attentive_scan_reference
from mambair.ops.selective_scan.mamba_ssm import selective_scan_mamba_ssm, unavailable_reason

__all__ = ["attentive_scan_mamba_ssm", "unavailable_reason"]


def _scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *rest: Any) -> Any:
    u, delta, B, C = (tensor.contiguous() for tensor in (u, delta, B, C))
    return selective_scan_mamba_ssm(u, delta, A, B, C, *rest)


def attentive_scan_mamba_ssm(operands: Operands) -> Tensor:
    """See `attentive_scan`; everything in float32."""
    return attentive_scan_reference(operands, scan=_scan)
