"""window_attention on the CPU, by PyTorch and by the compiled kernels, against its definition; what is refused."""

import pytest
import torch

from mambair.errors import UserError
from mambair.ops import window_attention
from tests.ops.cases import gradients, leaves, relative_error
from tests.ops.window_attention.cases import by_definition, random_attention

BACKENDS = [("auto", torch.float64, 1e-12), ("portable", torch.float32, 2e-5), ("numba", torch.float32, 2e-5)]


@pytest.mark.parametrize(("backend", "dtype", "tolerance"), BACKENDS)
@pytest.mark.parametrize("shift", [0, 1, 2])
@pytest.mark.parametrize("sizes", [{}, {"batch": 2, "height": 3, "width": 3, "heads": 1, "channels": 5}], ids=str)
def test_output_and_every_gradient(backend, dtype, tolerance, shift, sizes, monkeypatch):
    monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", backend)
    generator = torch.Generator().manual_seed(0)
    arguments = random_attention(generator, **sizes)
    exact, inputs = leaves(arguments, torch.float64), leaves(arguments, dtype)
    expected = by_definition(**exact, window_size=3, shift=shift)
    y = window_attention(**inputs, window_size=3, shift=shift)
    assert y.dtype == dtype and y.is_contiguous() and relative_error(y, expected) < tolerance
    weights = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    expected_gradients = gradients(expected, weights, exact)
    for name, gradient in gradients(y, weights, inputs).items():
        assert relative_error(gradient, expected_gradients[name]) < tolerance, name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shift": 3}, r"shift must lie in \[0, 3\)"),
        ({"qkv": torch.zeros(1, 5, 9, 18)}, "multiples of 3"),
        ({"bias_table": torch.zeros(49, 2)}, r"bias_table must be \(25, heads\)"),
        ({"bias_table": torch.zeros(25, 4)}, "18 channels of qkv"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(changes, message):
    arguments = random_attention(torch.Generator().manual_seed(0))
    with pytest.raises(UserError, match=message):
        window_attention(**{**arguments, "window_size": 3, "shift": 1, **changes})
