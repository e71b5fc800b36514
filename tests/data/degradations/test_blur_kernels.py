"""Blur kernels against what is known of them in closed form, and the frequencies of what is drawn."""

import math

import numpy as np
import pytest

from mambair.data.degradations import blur_kernels
from mambair.data.degradations.blur_kernels import (
    KernelDistribution,
    gaussian_kernel,
    generalized_gaussian_kernel,
    identity_kernel,
    pad_kernel,
    plateau_kernel,
    sinc_kernel,
)


def second_moments(kernel: np.ndarray) -> np.ndarray:
    """Covariance matrix of a kernel taken for a distribution over (x, y)."""
    radius = len(kernel) // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.array([[(kernel * a * b).sum() for b in (x, y)] for a in (x, y)])


@pytest.mark.parametrize("sigma", [1.0, 1.7, 3.0])
def test_isotropic_gaussian_has_its_sigma(sigma):
    moments = second_moments(gaussian_kernel(31, sigma, sigma))
    assert np.sqrt(moments[0, 0]) == pytest.approx(sigma, rel=0.01)
    assert np.sqrt(moments[1, 1]) == pytest.approx(sigma, rel=0.01)
    assert moments[0, 1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("angle", [0.0, 0.6, -2.0])
def test_rotated_gaussian_has_its_axes(angle):
    moments = second_moments(gaussian_kernel(31, 3.0, 1.2, angle))
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    expected = rotation @ np.diag([3.0**2, 1.2**2]) @ rotation.T
    np.testing.assert_allclose(moments, expected, atol=0.05)


def test_shape_parameter_one_is_a_gaussian():
    np.testing.assert_allclose(
        generalized_gaussian_kernel(21, 2.0, 1.0, 0.3, beta=1.0), gaussian_kernel(21, 2.0, 1.0, 0.3), atol=1e-7
    )


def test_larger_shape_parameter_is_flatter():
    kernels = [generalized_gaussian_kernel(21, 2.5, 2.5, 0, beta) for beta in (0.5, 1, 4)]
    next_to_centre = [kernel[10, 11] / kernel[10, 10] for kernel in kernels]
    assert next_to_centre[0] < next_to_centre[1] < next_to_centre[2] <= 1


def test_plateau_falls_to_half_at_sigma():
    kernel = plateau_kernel(21, 3.0, 3.0, 0.0, beta=2.0)
    assert kernel[10, 13] / kernel[10, 10] == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("cutoff", [math.pi / 4, math.pi / 2])
def test_sinc_passes_below_its_cutoff_and_stops_above(cutoff):
    kernel = sinc_kernel(101, cutoff)
    response = np.abs(np.fft.fft2(kernel))
    frequencies = 2 * math.pi * np.fft.fftfreq(101)
    radius = np.hypot(frequencies[:, None], frequencies[None])
    assert response[radius < 0.7 * cutoff].min() > 0.9
    assert response[(radius > 1.3 * cutoff)].max() < 0.1
    assert kernel.min() < 0  # it rings


def test_identity_and_padding():
    kernel = pad_kernel(gaussian_kernel(7, 1, 1), 21)
    assert kernel.shape == (21, 21)
    np.testing.assert_array_equal(kernel[7:14, 7:14], gaussian_kernel(7, 1, 1))
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    assert identity_kernel(21)[10, 10] == identity_kernel(21).sum() == 1


def test_every_drawn_kernel_sums_to_one_and_is_symmetric():
    rng = np.random.default_rng(0)
    distribution = KernelDistribution()
    for _ in range(300):
        kernel = distribution.draw(rng)
        assert kernel.shape == (21, 21) and kernel.dtype == np.float32
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-7)  # through the centre


def within_binomial_bounds(count: int, trials: int, odds: float) -> bool:
    return abs(count - trials * odds) < 5 * math.sqrt(trials * odds * (1 - odds))


def test_probabilities_of_kinds_and_sinc(monkeypatch):
    rng = np.random.default_rng(1)
    distribution = KernelDistribution()
    seen = []
    original = KernelDistribution._draw_kind

    def record(self, kind, side, rng):
        seen.append(kind)
        return original(self, kind, side, rng)

    monkeypatch.setattr(KernelDistribution, "_draw_kind", record)
    trials = 4000
    for _ in range(trials):
        distribution.draw(rng)
    assert within_binomial_bounds(trials - len(seen), trials, distribution.sinc_odds)
    for kind, odds in zip(distribution.kinds, distribution.odds, strict=True):
        assert within_binomial_bounds(seen.count(kind), len(seen), odds), kind


def test_sizes_are_odd_and_equally_likely():
    rng = np.random.default_rng(2)
    sizes = [KernelDistribution().draw_size(rng) for _ in range(4000)]
    assert set(sizes) == {7, 9, 11, 13, 15, 17, 19, 21}
    assert all(within_binomial_bounds(sizes.count(size), 4000, 1 / 8) for size in set(sizes))


def test_cut_off_frequencies_are_those_of_the_kernels_side(monkeypatch):
    drawn: list[tuple[int, float]] = []
    monkeypatch.setattr(
        blur_kernels, "sinc_kernel", lambda side, cutoff: drawn.append((side, cutoff)) or identity_kernel(side)
    )
    rng = np.random.default_rng(4)
    distribution = KernelDistribution(sinc_odds=1.0)
    for _ in range(4000):
        distribution.draw(rng)
    for sides, lowest in (((7, 9, 11), math.pi / 3), ((13, 15, 17, 19, 21), math.pi / 5)):
        cutoffs = np.array([cutoff for side, cutoff in drawn if side in sides])
        assert lowest <= cutoffs.min() < lowest + 0.02 and math.pi - 0.02 < cutoffs.max() <= math.pi
    drawn.clear()
    for _ in range(2000):
        distribution.draw_sinc_or_identity(1.0, rng)
    cutoffs = np.array([cutoff for _, cutoff in drawn])
    assert math.pi / 3 <= cutoffs.min() < math.pi / 3 + 0.02 and cutoffs.max() <= math.pi


def test_sigmas_and_shapes_stay_in_their_ranges(monkeypatch):
    seen = {"sigma": [], "beta": []}

    def record(size, sigma_x, sigma_y, angle=0.0, beta=1.0):
        seen["sigma"] += [sigma_x, sigma_y]
        seen["beta"].append(beta)
        return identity_kernel(size)

    monkeypatch.setattr(blur_kernels, "generalized_gaussian_kernel", record)
    distribution = KernelDistribution(kinds=("generalized_aniso",), odds=(1.0,), sinc_odds=0.0)
    rng = np.random.default_rng(5)
    for _ in range(3000):
        distribution.draw(rng)
    assert 0.2 <= min(seen["sigma"]) < 0.21 and 2.99 < max(seen["sigma"]) <= 3
    assert 0.5 <= min(seen["beta"]) < 0.51 and 3.98 < max(seen["beta"]) <= 4
    assert within_binomial_bounds(sum(beta < 1 for beta in seen["beta"]), 3000, 0.5)


def test_final_filter_is_the_identity_one_time_in_five():
    rng = np.random.default_rng(3)
    kernels = [KernelDistribution().draw_sinc_or_identity(0.8, rng) for _ in range(2000)]
    identities = sum(kernel[10, 10] == 1 for kernel in kernels)
    assert within_binomial_bounds(identities, 2000, 0.2)


def test_same_generator_state_gives_the_same_kernel():
    first, second = (KernelDistribution().draw(np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
