"""Blur kernels of real-world degradation: Gaussian, generalized Gaussian, plateau and sinc.

Real-ESRGAN, Sections 3.1 and 3.4. With C the covariance of a rotated Gaussian and d2 = x' C^-1 x the squared
Mahalanobis distance of pixel x from the centre:

    Gaussian               exp(-d2 / 2)
    generalized Gaussian   exp(-d2^beta / 2)
    plateau                1 / (1 + d2^beta)

All kernels are float32, `size` x `size` with `size` odd, and sum to 1.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import j1

KERNEL_KINDS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")


def _normalized(kernel: np.ndarray) -> np.ndarray:
    return (kernel / kernel.sum()).astype(np.float32)


def _squared_distances(size: int, sigma_x: float, sigma_y: float, angle: float) -> np.ndarray:
    """Squared Mahalanobis distances (size, size) from the centre; `angle` turns the x axis, in radians."""
    assert size % 2 == 1, "a kernel needs a centre pixel"
    radius = size // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    return (along / sigma_x) ** 2 + (across / sigma_y) ** 2


def gaussian_kernel(size: int, sigma_x: float, sigma_y: float, angle: float = 0.0) -> np.ndarray:
    """Gaussian kernel (size, size) with standard deviations in pixels along its two axes."""
    return _normalized(np.exp(-_squared_distances(size, sigma_x, sigma_y, angle) / 2))


def generalized_gaussian_kernel(size: int, sigma_x: float, sigma_y: float, angle: float, beta: float) -> np.ndarray:
    """Generalized Gaussian kernel: `beta` below 1 has a sharper peak, above 1 a flatter one, 1 is Gaussian."""
    return _normalized(np.exp(-(_squared_distances(size, sigma_x, sigma_y, angle) ** beta) / 2))


def plateau_kernel(size: int, sigma_x: float, sigma_y: float, angle: float, beta: float) -> np.ndarray:
    """Plateau-shaped kernel: flat in the middle, falling off polynomially with `beta`."""
    return _normalized(1 / (1 + _squared_distances(size, sigma_x, sigma_y, angle) ** beta))


def sinc_kernel(size: int, cutoff: float) -> np.ndarray:
    """Circular low-pass filter (size, size), which rings: cutoff * J1(cutoff * r) / (2 pi r).

    `cutoff` is the angular frequency in radians per pixel, 0 < cutoff <= pi (Real-ESRGAN, Eq. 6).
    """
    assert size % 2 == 1, "a kernel needs a centre pixel"
    radius = size // 2
    distance = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64))
    distance[radius, radius] = 1.0  # the value there is the limit r -> 0, set below
    kernel = cutoff * j1(cutoff * distance) / (2 * math.pi * distance)
    kernel[radius, radius] = cutoff**2 / (4 * math.pi)
    return _normalized(kernel)


def identity_kernel(size: int) -> np.ndarray:
    """Kernel (size, size) that leaves an image as it is."""
    kernel = np.zeros((size, size), dtype=np.float32)
    kernel[size // 2, size // 2] = 1
    return kernel


def pad_kernel(kernel: np.ndarray, size: int) -> np.ndarray:
    """Put zeros around a kernel, up to (size, size)."""
    margin = (size - kernel.shape[0]) // 2
    return np.pad(kernel, margin)


@dataclass(frozen=True)
class KernelDistribution:
    """What the blur kernels of one degradation round are drawn from.

    Smaller kernels than `size` are drawn too (odd sides from `smallest` on, all equally likely) and padded with
    zeros. Kernels of the kinds `kinds` come with the probabilities `odds` (normalized here), but with probability
    `sinc_odds` a sinc kernel takes their place. `sigma` is in pixels; all ranges are (low, high).
    """

    size: int = 21
    smallest: int = 7
    kinds: tuple[str, ...] = KERNEL_KINDS
    odds: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sinc_odds: float = 0.1
    sigma: tuple[float, float] = (0.2, 3.0)
    beta_gaussian: tuple[float, float] = (0.5, 4.0)
    beta_plateau: tuple[float, float] = (1.0, 2.0)

    def __post_init__(self) -> None:
        assert self.size % 2 == 1, "a kernel needs a centre pixel"
        assert len(self.kinds) == len(self.odds) and set(self.kinds) <= set(KERNEL_KINDS)

    def draw_size(self, rng: np.random.Generator) -> int:
        """An odd side between `smallest` (or `size`, if that is less) and `size`."""
        return int(rng.choice(np.arange(min(self.smallest, self.size), self.size + 1, 2)))

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One blur kernel (size, size)."""
        side = self.draw_size(rng)
        if rng.uniform() < self.sinc_odds:
            # Small kernels cannot hold the slow rings of a low cut-off.
            cutoff = rng.uniform(math.pi / (3 if side < 13 else 5), math.pi)
            return pad_kernel(sinc_kernel(side, cutoff), self.size)
        odds = np.asarray(self.odds) / np.sum(self.odds)
        return pad_kernel(self._draw_kind(self.kinds[rng.choice(len(odds), p=odds)], side, rng), self.size)

    def draw_sinc_or_identity(self, odds: float, rng: np.random.Generator) -> np.ndarray:
        """With probability `odds` a sinc kernel, else the identity: the filter next to the last JPEG compression."""
        if rng.uniform() >= odds:
            return identity_kernel(self.size)
        return pad_kernel(sinc_kernel(self.draw_size(rng), rng.uniform(math.pi / 3, math.pi)), self.size)

    def _draw_kind(self, kind: str, side: int, rng: np.random.Generator) -> np.ndarray:
        sigma_x = sigma_y = rng.uniform(*self.sigma)
        angle = 0.0
        if kind.endswith("aniso"):
            sigma_y = rng.uniform(*self.sigma)
            angle = rng.uniform(-math.pi, math.pi)
        if kind.startswith("generalized"):
            beta = _draw_shape(self.beta_gaussian, rng)
            return generalized_gaussian_kernel(side, sigma_x, sigma_y, angle, beta)
        if kind.startswith("plateau"):
            return plateau_kernel(side, sigma_x, sigma_y, angle, _draw_shape(self.beta_plateau, rng))
        return gaussian_kernel(side, sigma_x, sigma_y, angle)


def _draw_shape(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    """A shape parameter: half of the draws below 1 (sharper than a Gaussian), half above, as Real-ESRGAN draws it.

    Drawn evenly over .5-4, six of seven kernels would have flat tops.
    """
    low, high = bounds
    below_one = rng.uniform() < 0.5
    if low >= 1 or high <= 1:
        return rng.uniform(low, high)
    return rng.uniform(low, 1) if below_one else rng.uniform(1, high)
