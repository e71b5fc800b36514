"""A tiny scan on one backend, compared with the reference: what `mambair doctor` runs in a process of its own."""

import sys

import torch

from mambair.ops import ss2d_scan

# B batch, H x W pixels, E inner channels, K directions, R rank of delta, N states: odd on purpose.
B, H, W, E, K, R, N = 1, 7, 5, 12, 4, 2, 10

TOLERANCE = 1e-4
"""Largest error of values and gradients that counts as equal, relative to the largest value."""


def scan_error(backend: str, device: str) -> float:
    """Largest relative error of a backend's results and gradients against the reference on the CPU."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(B, H, W, E), (K, R + 2 * N, E), (K, E, R), (K, E), (K * E, N), (K * E,)]
    arguments = [torch.randn(shape, generator=generator) * 0.3 for shape in shapes]
    weights = torch.randn(B, H, W, E, generator=generator)
    expected = _values_and_gradients(arguments, weights, "reference", "cpu")
    found = _values_and_gradients(arguments, weights, backend, device)
    return max(
        ((one - other).abs().max() / other.abs().max()).item() for one, other in zip(found, expected, strict=True)
    )


def _values_and_gradients(
    arguments: list[torch.Tensor], weights: torch.Tensor, backend: str, device: str
) -> list[torch.Tensor]:
    leaves = [argument.to(device).requires_grad_(True) for argument in (each.clone() for each in arguments)]
    x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds = leaves
    result = ss2d_scan(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds, directions=K, backend=backend)
    gradients = torch.autograd.grad((result * weights.to(device)).sum(), leaves)
    return [tensor.detach().cpu() for tensor in (result, *gradients)]


def report_scan_error(backend: str, device: str) -> None:
    """Print the error and exit with 0 if it is within the tolerance, with 1 otherwise."""
    error = scan_error(backend, device)
    print(f"{error:.1e}")
    sys.exit(0 if error <= TOLERANCE else 1)
