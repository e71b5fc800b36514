"""Seeds and states of the global random generators.

Own code draws from generators that are passed in. The global ones are still used by PyTorch layers (DropPath) and
by libraries, so they are seeded, saved in checkpoints and restored.
"""

import os
import random
from typing import Any

import numpy as np
import torch

CUBLAS_WORKSPACE = ":4096:8"


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed the generators of Python, NumPy and PyTorch (CPU and every GPU) with `seed` >= 0.

    `deterministic` makes runs on one machine repeat bit for bit: PyTorch then uses deterministic algorithms only, and
    raises where an operation has none. Call it before the first CUDA operation, which fixes cuBLAS's workspace.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # the legacy generator's limit
    torch.manual_seed(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(deterministic)


def get_rng_state() -> dict[str, Any]:
    """State of the generators of Python, NumPy, PyTorch and the current GPU.

    Holds tensors, numbers, tuples and strings only, so that torch.load(weights_only=True) reads it back.
    """
    name, keys, position, has_gauss, cached_gauss = np.random.get_state(legacy=True)
    assert isinstance(keys, np.ndarray)
    state = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached_gauss),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what `get_rng_state` returned; a GPU's state is skipped where there is no GPU."""
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    name, keys, position, has_gauss, cached_gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached_gauss))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
