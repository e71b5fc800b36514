import math

import numpy as np
import pytest
from numba import njit

from mambair.ops.cpu import simd
from mambair.ops.cpu.simd import (
    FOLDED,
    LANES,
    add_folded,
    broadcast,
    broadcast_at,
    exp2,
    exp2_of_negative,
    fma,
    lane_sum,
    load,
    maximum,
    positive_part,
    sigmoid,
    softplus,
    store,
)

SPECIAL = [-math.inf, -1e30, -200.0, -127.0, 0.0, 128.0, 1e30, math.inf, math.nan]


def apply(function, values) -> np.ndarray:
    """`function` of every value, through the vector type."""

    @njit(error_model="numpy")
    def run(source, target):
        for row in range(source.shape[0]):
            store(target, (row,), function(load(source, (row,))))

    values = np.asarray(values, dtype=np.float32)
    rows = -(-values.size // LANES)
    source = np.zeros((rows, LANES), dtype=np.float32)
    source.reshape(-1)[: values.size] = values
    target = np.full_like(source, np.nan)
    run(source, target)
    return target.reshape(-1)[: values.size].astype(np.float64)


def test_exp2_is_accurate_over_its_range() -> None:
    values = np.linspace(-126, 127.9, 100_001).astype(np.float32)
    expected = np.exp2(values.astype(np.float64))
    assert np.abs(apply(exp2, values) / expected - 1).max() < 1.2e-7


def test_exp2_near_one_is_as_accurate_as_float32_allows() -> None:
    values = -np.logspace(-8, -2, 1001).astype(np.float32)
    assert np.abs(apply(exp2, values) - np.exp2(values.astype(np.float64))).max() <= 2.0**-24


def test_exp2_beyond_its_range() -> None:
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(apply(exp2, SPECIAL), [0, 0, 0, 0, 1, math.inf, math.inf, math.inf, math.nan])


def test_exp2_of_negative_is_exp2_without_its_upper_bound() -> None:
    values = np.concatenate([-np.logspace(-8, 3, 10_001), SPECIAL[:5], [math.nan]])
    np.testing.assert_array_equal(apply(exp2_of_negative, values), apply(exp2, values))


def test_softplus_keeps_small_results_and_does_not_overflow() -> None:
    values = np.linspace(-80, 80, 100_001).astype(np.float32)
    expected = np.logaddexp(0.0, values.astype(np.float64))
    # An error of half a unit in the last place of the exponent's argument is |x| times as large in the result.
    tolerance = 3e-7 + 1e-7 * np.abs(np.minimum(values, 0.0))
    assert (np.abs(apply(softplus, values) / expected - 1) < tolerance).all()
    np.testing.assert_allclose(
        apply(softplus, SPECIAL), [0, 0, 0, 0, math.log(2), 128, 1e30, math.inf, math.nan], rtol=1e-6
    )


def test_sigmoid_saturates() -> None:
    values = np.linspace(-30, 30, 10_001).astype(np.float32)
    expected = 1 / (1 + np.exp(-values.astype(np.float64)))
    assert np.abs(apply(sigmoid, values) / expected - 1).max() < 3e-6
    np.testing.assert_array_equal(apply(sigmoid, SPECIAL), [0, 0, 0, 0, 0.5, 1, 1, 1, math.nan])


def test_lane_sum_and_operators() -> None:
    @njit(error_model="numpy")
    def combine(x):
        return fma(x, broadcast(2.0), broadcast(lane_sum(x))) / broadcast(4.0) - positive_part(x) + x * x

    values = np.arange(-8.0, 8.0)
    expected = (2 * values + values.sum()) / 4 - np.maximum(values, 0) + values**2
    np.testing.assert_allclose(apply(combine, values), expected)


def test_folded_sums_and_broadcast_elements() -> None:
    @njit(error_model="numpy")
    def run(sums, values, rows):
        for row in range(rows.shape[0]):
            add_folded(sums, (1, row), load(rows, (row,)) * broadcast_at(values, (row, 1)))

    rows, values = np.arange(48, dtype=np.float32).reshape(3, LANES), np.array([[9, 2], [9, 3], [9, 4]], np.float32)
    sums = np.ones((2, 3, FOLDED), np.float32)
    run(sums, values, rows)
    np.testing.assert_array_equal(sums[0], 1)
    np.testing.assert_array_equal(sums[1].sum(axis=1), FOLDED + rows.sum(axis=1) * values[:, 1])


def test_maximum_passes_over_nan() -> None:
    @njit(error_model="numpy")
    def most(x):
        return maximum(x, broadcast(-3.0))

    np.testing.assert_array_equal(apply(most, SPECIAL), np.fmax(np.float32(SPECIAL), -3))


def test_transpose_moves_exactly_one_tile() -> None:
    @njit
    def run(source, target):
        simd.transpose(source, 2, 3, target, 1, 5)

    source = np.random.default_rng(0).random((20, 40), dtype=np.float32)
    target = np.zeros((18, 30), dtype=np.float32)
    run(source, target)
    expected = np.zeros_like(target)
    expected[1:17, 5:21] = source[2:18, 3:19].T
    np.testing.assert_array_equal(target, expected)


@pytest.mark.parametrize("function", [exp2, softplus, sigmoid])
def test_functions_compile_to_vectors(function) -> None:
    @njit(error_model="numpy")
    def run(source, target):
        store(target, (0,), function(load(source, (0,))))

    buffer = np.zeros((1, LANES), dtype=np.float32)
    run(buffer, buffer)
    (code,) = run.inspect_llvm().values()
    assert "fmuladd.v16f32" in code
    # A call of the scalar function would take the whole time of the scan.
    assert "expf" not in code
    assert "exp2.f32" not in code
