"""attentive_scan in standard operators, for devices without kernels of their own and for export."""

from torch import Tensor

from mambair.ops.attentive_scan.operands import Operands
from mambair.ops.attentive_scan.reference import attentive_scan_reference
from mambair.ops.selective_scan.portable import selective_scan_portable, unavailable_reason

__all__ = ["attentive_scan_portable", "unavailable_reason"]


def attentive_scan_portable(operands: Operands) -> Tensor:
    """See `attentive_scan`: the definition but for the scan in it."""
    return attentive_scan_reference(operands, scan=selective_scan_portable)
