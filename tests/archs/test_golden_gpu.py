"""MambaIRv2 against the published code on the Triton kernels of a CUDA GPU; without one they take too long."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mambair.archs import build_network
from mambair.ops.attentive_layer.function import PartFunction
from mambair.ops.backends import ENVIRONMENT_VARIABLE

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

GRADIENTS = ["v2light_small_argmax_grads", "v2base_small_argmax_grads"]
OUTPUTS = ["v2light_x2_argmax", "v2base_gray_x1_argmax", *GRADIENTS]
# Largest errors, of the largest value. In bf16, where some pixels are sent to another token, the mean error counts.
OUTPUT, GRADIENT, MEAN_BF16 = 1e-4, 1e-3, 0.1
PARTS = 4
"""Of a layer, each of which runs as one operator."""


@pytest.fixture(autouse=True)
def exact_products_on_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "triton")
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def case(golden: Callable, fill: Callable) -> Callable[[str], tuple[nn.Module, dict[str, np.ndarray]]]:
    """`case(name)` -> (the network on the GPU in eval mode, without graphs of its own; the case's arrays)."""

    def load(name: str) -> tuple[nn.Module, dict[str, np.ndarray]]:
        arrays, meta = golden(name)
        network = fill(build_network(meta["options"]), meta["seed"]).cuda()
        network.replays_graphs = network.replays_steps = False
        return network, arrays

    return load


def counted() -> AbstractContextManager[mock.MagicMock]:
    """Counts the parts of layers that run as one operator."""
    return mock.patch.object(PartFunction, "apply", wraps=PartFunction.apply)


def layers_of(network: nn.Module) -> int:
    return sum(len(group.residual_group.layers) for group in network.layers)


def largest_error(found: Tensor, expected: np.ndarray) -> float:
    if not torch.isfinite(found).all():
        return float("inf")
    return float(np.abs(found.detach().float().cpu().numpy() - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", OUTPUTS)
def test_output_as_published(name: str, case: Callable) -> None:
    network, arrays = case(name)
    with torch.no_grad(), counted() as parts:
        output = network(torch.from_numpy(arrays["input"]).cuda())
    assert parts.call_count == PARTS * layers_of(network)
    assert largest_error(output, arrays["output"]) < OUTPUT


@pytest.mark.parametrize("name", OUTPUTS)
def test_output_in_bf16_is_near(name: str, case: Callable) -> None:
    network, arrays = case(name)
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        output = network(torch.from_numpy(arrays["input"]).cuda())
    error = output.float().cpu().numpy() - arrays["output"]
    assert np.sqrt((error**2).mean()) < MEAN_BF16 * np.abs(arrays["output"]).max()


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_as_published(name: str, case: Callable) -> None:
    network, arrays = case(name)
    x = torch.from_numpy(arrays["input"]).cuda().requires_grad_()
    with counted() as parts:
        output = network(x)
    assert parts.call_count == PARTS * layers_of(network)
    (output * torch.from_numpy(arrays["loss_weight"]).cuda()).sum().backward()
    gradients = {"input": x.grad, **{key: parameter.grad for key, parameter in network.named_parameters()}}
    expected = {key.removeprefix("grad/"): value for key, value in arrays.items() if key.startswith("grad/")}
    assert len(expected) > 40
    errors = {key: largest_error(gradients[key], value) for key, value in expected.items()}
    assert {key: error for key, error in errors.items() if not error < GRADIENT} == {}
