"""Where a run stands, beside weights and optimisers."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Position:
    """Where a run stands, beside weights and optimisers. What it begins with may come from a checkpoint."""

    iteration: int = 0
    best: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Data set/metric -> {"value", "iter"}."""
    validation_pending: bool = False
    """Whether the validation that belongs to this iteration has not been finished."""
