"""window_attention's compiled kernels for the CPU against PyTorch's attention in float64."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mambair.ops import window_attention
from mambair.ops.flops import window_attention_flops
from mambair.ops.window_attention.numba_cpu import window_attention_numba
from tests.ops.cases import gradients, leaves, relative_error
from tests.ops.window_attention.cases import random_attention

SIZES = [
    {"window": 16, "height": 32, "width": 48, "heads": 2, "channels": 12, "batch": 2},  # the published networks'
    {"window": 17, "height": 34, "width": 17, "heads": 1, "channels": 17},  # more queries and channels than lanes
    {"window": 5, "height": 10, "width": 15, "heads": 3, "channels": 1},
    {"window": 1, "height": 3, "width": 2, "heads": 1, "channels": 2},
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("shifted", [False, True])
def test_output_and_every_gradient(sizes, shifted):
    window = sizes["window"]
    shift = window // 2 if shifted else 0
    generator = torch.Generator().manual_seed(0)
    arguments = random_attention(generator, **sizes)
    exact, inputs = leaves(arguments, torch.float64), leaves(arguments, torch.float32)
    expected = window_attention(**exact, window_size=window, shift=shift)
    y = window_attention_numba(**inputs, window_size=window, shift=shift)
    assert y.is_contiguous() and relative_error(y, expected) < 1e-5
    with torch.no_grad():
        assert torch.equal(window_attention_numba(**inputs, window_size=window, shift=shift), y)
    weights = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    expected_gradients = gradients(expected, weights, exact)
    for name, gradient in gradients(y, weights, inputs).items():
        assert relative_error(gradient, expected_gradients[name]) < 1e-5, name


@pytest.mark.parametrize("factor", [0.0, 30.0])
def test_equal_and_very_different_scores(factor):
    """Scores in the hundreds leave one key, and no overflow; equal ones the mean of the values."""
    arguments = random_attention(torch.Generator().manual_seed(0))
    arguments = {"qkv": arguments["qkv"], "bias_table": factor * arguments["bias_table"]}
    arguments["qkv"][..., :12] *= factor
    exact, inputs = leaves(arguments, torch.float64), leaves(arguments, torch.float32)
    expected = window_attention(**exact, window_size=3)
    y = window_attention_numba(**inputs, window_size=3, shift=0)
    assert relative_error(y, expected) < 1e-4
    weights = torch.ones(y.shape, dtype=torch.float64)
    expected_gradients = gradients(expected, weights, exact)
    for name, gradient in gradients(y, weights, inputs).items():
        assert (gradient - expected_gradients[name]).abs().max() < 1e-3, name


def test_the_same_bits_on_any_number_of_threads_and_strided():
    arguments = random_attention(torch.Generator().manual_seed(0), batch=2, height=8, width=8, window=4)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            inputs = leaves(arguments, torch.float32)
            wide = torch.stack((inputs["qkv"], torch.full_like(inputs["qkv"], torch.nan)), dim=-1)
            y = window_attention_numba(wide[..., 0], inputs["bias_table"], 4, 1)
            results.append((y, *gradients(y, y.detach(), inputs).values()))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


def test_what_watches_calls_sees_an_operator():
    inputs = leaves(random_attention(torch.Generator().manual_seed(0)), torch.float32)
    with FlopCounterMode(display=False) as counter:
        y = window_attention_numba(**inputs, window_size=3, shift=1)
    assert counter.get_total_flops() == window_attention_flops(54, 6, 3)
    direct = leaves(inputs, torch.float32)
    expected = gradients(window_attention_numba(**direct, window_size=3, shift=1), torch.ones_like(y), direct)
    found = gradients(y, torch.ones_like(y), inputs)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    torch.library.opcheck(
        torch.ops.mambair.window_attention_numba, (*(each.detach() for each in inputs.values()), 3, 1, True)
    )


def test_half_precision_keeps_its_type():
    arguments = random_attention(torch.Generator().manual_seed(0))
    inputs = {name: value.bfloat16() for name, value in arguments.items()}
    y = window_attention(**inputs, window_size=3, shift=1)
    expected = window_attention(**{name: value.double() for name, value in inputs.items()}, window_size=3, shift=1)
    assert y.dtype == torch.bfloat16 and relative_error(y, expected) < 1e-2
