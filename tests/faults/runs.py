"""What a run leaves behind, compared to the last bit."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FREE = {"processes"}
"""What a state holds that may differ: the random states of a process before it drew from them."""


def read_state(root: Path, iteration: int, name: str = "tiny") -> dict[str, Any]:
    """training_states/<iteration>.state of a run below `root`."""
    return torch.load(root / "experiments" / name / "training_states" / f"{iteration}.state", weights_only=True)


def differences(first: Any, second: Any, path: str = "") -> list[str]:
    """Where two nested values differ; tensors must be equal bit by bit."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = list(dict.fromkeys([*first, *second]))
        lost = [f"{path}/{key}: only in one" for key in keys if (key in first) != (key in second)]
        return lost + [
            found
            for key in keys
            if key in first and key in second
            for found in differences(first[key], second[key], f"{path}/{key}")
        ]
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return [found for index, (a, b) in pairs for found in differences(a, b, f"{path}/{index}")]
    same = torch.equal(first, second) if isinstance(first, Tensor) and isinstance(second, Tensor) else first == second
    return [] if same else [f"{path}: {first} and {second}"[:200]]


def assert_same_end(reference: Path, root: Path, iteration: int) -> None:
    """Weights, averages, best weights, optimisers, validation numbers: of two runs, equal to the last bit."""
    first, second = (
        {
            **{
                label: torch.load(folder / "experiments/tiny/models" / f"net_g_{label}.pth", weights_only=True)
                for label in (iteration, "best", "latest")
            },
            "state": {key: value for key, value in read_state(folder, iteration).items() if key not in FREE},
        }
        for folder in (reference, root)
    )
    assert differences(first, second) == []
