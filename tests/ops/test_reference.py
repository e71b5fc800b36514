import pytest
import torch
from torch import Tensor

from mambair.ops import selective_scan, ss2d_scan
from mambair.ops.ss2d.reference import direction_orders
from tests.ops.cases import (
    SCAN_CASES,
    SCAN_INPUTS,
    SS2D_CASES,
    gradients,
    leaves,
    load_golden,
    random_scan,
    random_ss2d,
    relative_error,
    vssm,
)


@pytest.mark.parametrize("case", SCAN_CASES)
def test_selective_scan_equals_golden_in_float64(case: str) -> None:
    meta, arrays = load_golden(case, torch.float64)
    inputs = leaves({name: arrays[name] for name in SCAN_INPUTS}, torch.float64)
    y, state = selective_scan(
        **inputs, delta_softplus=meta["delta_softplus"], return_last_state=True, backend="reference"
    )
    assert relative_error(y, arrays["out"]) < 1e-12
    assert relative_error(state, arrays["last_state"]) < 1e-12
    for name, gradient in gradients(y, arrays["w"], inputs).items():
        assert relative_error(gradient, arrays[f"grad_{name}"]) < 1e-11, name


@pytest.mark.parametrize("case", SS2D_CASES)
def test_ss2d_equals_golden(case: str) -> None:
    _, arrays = load_golden(case, torch.float64)
    inputs = leaves({key: arrays[key] for key in arrays if key == "input" or key.startswith("param/")}, torch.float64)

    def scan(*arguments: Tensor) -> Tensor:
        return ss2d_scan(*arguments, backend="reference")

    output = vssm({**arrays, **inputs}, scan)
    assert relative_error(output, arrays["output"]) < 1e-5
    for name, gradient in gradients(output, arrays["w"], inputs).items():
        expected = arrays["grad_input" if name == "input" else name.replace("param/", "grad/")]
        assert relative_error(gradient, expected) < 1e-5, name


def test_selective_scan_follows_the_recurrence_by_hand() -> None:
    ones = torch.ones(1, 1, 2, dtype=torch.float64)
    decay = torch.full((1, 1), -0.5, dtype=torch.float64)
    u = torch.tensor([[[1.0, 3.0]]], dtype=torch.float64)
    y, state = selective_scan(u, 2 * ones, decay, ones, ones, return_last_state=True, backend="reference")
    second = torch.exp(torch.tensor(-1.0, dtype=torch.float64)) * 2.0 + 6.0
    assert torch.allclose(y, torch.tensor([[[2.0, second]]], dtype=torch.float64))
    assert torch.allclose(state, second.view(1, 1, 1))


def test_last_state_has_gradients() -> None:
    inputs = leaves(
        random_scan(torch.Generator().manual_seed(0), batch=1, channels=2, length=4, states=2), torch.float64
    )
    torch.autograd.gradcheck(
        lambda *values: selective_scan(*values, delta_softplus=True, return_last_state=True, backend="reference"),
        tuple(inputs.values()),
    )


def test_directions_visit_the_pixels_in_the_documented_order() -> None:
    assert direction_orders(2, 3, 4, torch.device("cpu")).tolist() == [
        [0, 1, 2, 3, 4, 5],
        [0, 3, 1, 4, 2, 5],
        [5, 4, 3, 2, 1, 0],
        [5, 2, 4, 1, 3, 0],
    ]
    assert direction_orders(2, 3, 2, torch.device("cpu")).tolist() == [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]]
    assert direction_orders(2, 3, 1, torch.device("cpu")).tolist() == [[0, 1, 2, 3, 4, 5]]


def test_half_precision_is_computed_in_float32() -> None:
    arguments = random_ss2d(torch.Generator().manual_seed(1))
    low = {name: value.to(torch.bfloat16) for name, value in arguments.items()}
    expected = ss2d_scan(**{name: value.float() for name, value in low.items()}, backend="reference")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ss2d_scan(**low, backend="reference")
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.to(torch.bfloat16))
