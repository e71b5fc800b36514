"""Golden cases: small networks with numbers in every weight, and what the published code makes of them."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


def golden_values(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """The golden cases' weights: noise from one generator, in the names' order, scaled so that every weight tells."""
    rng = np.random.default_rng(seed)
    values = {}
    for key in sorted(shapes):
        shape = tuple(shapes[key])
        noise = rng.standard_normal(shape)
        last = key.rpartition(".")[2]
        if last == "A_logs":
            value = np.log(np.arange(1, shape[-1] + 1, dtype=np.float64))[None] + 0.02 * noise
        elif last in ("Ds", "skip_scale", "skip_scale2"):
            value = 1 + 0.1 * noise
        elif last in ("scale1", "scale2"):
            value = 0.1 * noise
        elif last == "relative_position_bias_table":
            value = 0.02 * noise
        elif last == "dt_projs_bias":
            value = np.log(np.expm1(0.01)) + 0.5 * noise
        elif last in ("dt_projs_weight", "x_proj_weight"):
            value = noise / np.sqrt(shape[-1])
        elif last == "weight" and len(shape) == 1:
            value = 1 + 0.02 * noise
        elif len(shape) >= 2:
            value = noise / np.sqrt(np.prod(shape[1:]))
        elif key.endswith("attention.1.bias"):
            value = 1 + 0.02 * noise
        else:
            value = 0.02 * noise
        values[key] = torch.from_numpy(value.astype(np.float32))
    return values


@pytest.fixture
def fill():
    """`fill(network, seed)` gives every parameter its golden value and returns the network in eval mode."""

    def fill_network(network: nn.Module, seed: int) -> nn.Module:
        values = golden_values({name: tuple(p.shape) for name, p in network.named_parameters()}, seed)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(values[name])
        return network.eval()

    return fill_network


@pytest.fixture(scope="session")
def layouts() -> dict:
    """{published model: {"options", "params", "state": {key: shape}}}, of both versions."""
    found = {}
    for name in ("state_layouts", "state_layouts_v2"):
        with gzip.open(GOLDEN / f"{name}.json.gz", "rt") as file:
            found |= json.load(file)
    return found


@pytest.fixture
def golden():
    """`golden(case)` -> (arrays, meta) of a golden case."""

    def load(case: str) -> tuple[dict[str, np.ndarray], dict]:
        with np.load(GOLDEN / f"{case}.npz") as file:
            arrays = {key: file[key] for key in file.files}
        return arrays, json.loads(str(arrays.pop("meta")))

    return load
