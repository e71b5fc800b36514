"""attentive_scan on the CPU: the reference and the compiled kernels against the definition; what is refused."""

import pytest
import torch

from mambair.errors import UserError
from mambair.ops import attentive_scan
from tests.ops.attentive_scan.cases import by_definition, random_problem
from tests.ops.cases import gradients, leaves, relative_error

SIZES = [
    {},
    {"batch": 1, "length": 1, "channels": 1, "states": 1, "rank": 1, "count": 2},
    {"length": 130, "channels": 19, "states": 5, "rank": 3, "count": 7},
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(
    ("backend", "dtype", "tolerance"),
    [
        ("reference", torch.float64, 1e-12),
        ("reference", torch.float32, 1e-5),
        ("portable", torch.float64, 1e-12),
        ("portable", torch.float32, 1e-5),
        ("numba", torch.float32, 1e-5),
    ],
)
def test_output_and_every_gradient(sizes, backend, dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    arguments, tokens = random_problem(generator, **sizes)
    weights = torch.randn(arguments["x"].shape, generator=generator, dtype=torch.float64)
    exact = leaves(arguments, torch.float64)
    expected = by_definition(tokens, **exact)
    found = leaves(arguments, dtype)
    y = attentive_scan(tokens=tokens, **found, backend=backend)
    assert y.dtype == dtype and relative_error(y, expected) < tolerance
    expected_gradients = gradients(expected, weights, exact)
    for name, gradient in gradients(y, weights, found).items():
        assert relative_error(gradient, expected_gradients[name]) < tolerance, name


@pytest.mark.parametrize("backend", ["reference", "portable", "numba"])
def test_without_policy_and_strided(backend):
    generator = torch.Generator().manual_seed(0)
    arguments, tokens = random_problem(generator)
    arguments = {name: value.float() for name, value in arguments.items()}
    expected = attentive_scan(tokens=tokens, **arguments, backend=backend)
    wide = torch.full((*arguments["x"].shape[:2], 12), torch.nan)
    wide[..., ::2] = arguments["x"]
    arguments |= {"x": wide[..., ::2], "policy": None}
    assert torch.allclose(attentive_scan(tokens=tokens.int(), **arguments, backend=backend), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": torch.zeros(2, 37)}, "tokens must be 32-bit or 64-bit integers"),
        ({"tokens": torch.zeros(2, 36, dtype=torch.int64)}, r"tokens must be \(2, 37\)"),
        ({"policy": torch.zeros(2, 37, 4)}, r"policy must be \(2, 37, 5\)"),
        ({"prompts": torch.zeros(5, 3)}, r"x_proj_weight must be \(1, 8, 6\)"),
        ({"Ds": torch.zeros(6, dtype=torch.int64)}, "Ds must be real floating point"),
        ({"x": torch.zeros(2, 37)}, r"x must be \(B, L, D\)"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(changes, message):
    arguments, tokens = random_problem(torch.Generator().manual_seed(0))
    with pytest.raises(UserError, match=message):
        attentive_scan(**{"tokens": tokens, **arguments, **changes})
