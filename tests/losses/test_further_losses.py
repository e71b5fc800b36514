"""Each loss against an independent implementation in float64: NumPy's and SciPy's, written from the definition."""

import math

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage
from torch import Tensor

import mambair.losses
from mambair.errors import UserError
from mambair.imaging.color import rgb_to_y
from mambair.losses import ColorLoss, FourierLoss, GradientLoss, L1Loss, LDLLoss, LossTerm, MSSSIMLoss
from mambair.registry import LOSSES

assert mambair.losses  # registers them


def images(count: int = 3, *shape: int, seed: int = 0) -> list[Tensor]:
    """The same smooth random images in [0, 1] with noise of different kinds, float64."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random(shape), (0, 0, 2, 2))
    smooth = (smooth - smooth.mean()) * 3 + 0.5
    noisy = [np.clip(smooth + rng.normal(0, 0.04, shape), 0, 1) for _ in range(count)]
    return [torch.from_numpy(each) for each in noisy]


def gradients_are_right(loss: torch.nn.Module, *shape: int) -> bool:
    prediction, target = images(2, *shape, seed=5)
    return torch.autograd.gradcheck(lambda x: loss(x, target), prediction.requires_grad_(), fast_mode=True)


def ssim_by_scipy(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """SSIM, and its contrast-structure part, of two (H, W) planes in [0, 1]."""

    def mean(plane: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(plane, 1.5, truncate=3.5)[5:-5, 5:-5]

    m1, m2 = mean(first), mean(second)
    v1, v2, cov = mean(first**2) - m1**2, mean(second**2) - m2**2, mean(first * second) - m1 * m2
    structure = (2 * cov + 0.03**2) / (v1 + v2 + 0.03**2)
    luminance = (2 * m1 * m2 + 0.01**2) / (m1**2 + m2**2 + 0.01**2)
    return float((luminance * structure).mean()), float(structure.mean())


@pytest.mark.parametrize("scales", [1, 3, 5])
def test_ms_ssim(scales: int) -> None:
    side = 11 * 2 ** (scales - 1) + 3
    prediction, target = images(2, 2, 3, side, side + 8)
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[:scales]
    weights /= weights.sum()
    values = []
    planes = [each.numpy().reshape(-1, side, side + 8) for each in (prediction, target)]
    for first, second in zip(*planes, strict=True):
        value = 1.0
        for scale, weight in enumerate(weights):
            if scale:
                height, width = (length // 2 * 2 for length in first.shape)
                first, second = (
                    plane[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
                    for plane in (first, second)
                )
            whole, structure = ssim_by_scipy(first, second)
            value *= (whole if scale == scales - 1 else structure) ** weight
        values.append(value)
    expected = 1 - np.mean(values)
    loss = MSSSIMLoss(scales=scales, loss_weight=2.0)
    assert loss(prediction, target).item() == pytest.approx(2 * expected, rel=1e-9)
    assert MSSSIMLoss(scales=scales)(target, target).item() == pytest.approx(0, abs=1e-12)


def test_ms_ssim_has_gradients_and_says_how_large_patches_must_be() -> None:
    assert gradients_are_right(MSSSIMLoss(scales=2), 1, 1, 24, 22)
    with pytest.raises(UserError, match="5 scales need patches of 176 pixels, these have 64"):
        MSSSIMLoss()(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64))
    with pytest.raises(UserError, match="scales is 6"):
        LOSSES.build({"type": "MSSSIMLoss", "scales": 6})


def dft(planes: np.ndarray) -> np.ndarray:
    """The two-dimensional Fourier transform of (..., H, W) by its definition."""
    height, width = planes.shape[-2:]
    rows = np.exp(-2j * np.pi * np.outer(np.arange(height), np.arange(height)) / height)
    columns = np.exp(-2j * np.pi * np.outer(np.arange(width), np.arange(width)) / width)
    return rows @ planes @ columns


@pytest.mark.parametrize("norm", ["backward", "ortho"])
def test_fourier(norm: str) -> None:
    prediction, target = images(2, 2, 3, 9, 12)
    factor = 1 / math.sqrt(9 * 12) if norm == "ortho" else 1.0
    given, aim = dft(prediction.numpy()) * factor, dft(target.numpy()) * factor
    parts = np.stack([(given - aim).real, (given - aim).imag])
    loss = FourierLoss(norm=norm, loss_weight=0.5)
    assert loss(prediction, target).item() == pytest.approx(0.5 * np.abs(parts).mean(), rel=1e-9)
    angle = np.abs(np.angle(given) - np.angle(aim))
    expected = np.abs(np.abs(given) - np.abs(aim)).mean() + 0.3 * np.minimum(angle, 2 * np.pi - angle).mean()
    loss = FourierLoss(kind="amplitude_phase", phase_weight=0.3, norm=norm)
    assert loss(prediction, target).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["complex", "amplitude_phase"])
def test_fourier_gradients(kind: str) -> None:
    assert gradients_are_right(FourierLoss(kind=kind), 1, 2, 6, 7)


def artifact_map_by_numpy(prediction: np.ndarray, target: np.ndarray, averaged: np.ndarray | None) -> np.ndarray:
    """Of one image (C, H, W): the paper's Eq. 3 to 6, pixel by pixel."""
    residual = np.abs(target - prediction).sum(axis=0)
    patch = residual.var(ddof=1) ** 0.2
    padded = np.pad(residual, 3, mode="reflect")
    weights = patch * sliding_window_view(padded, (7, 7)).var(axis=(2, 3), ddof=1)
    if averaged is not None:
        weights[residual < np.abs(target - averaged).sum(axis=0)] = 0
    return weights


@pytest.mark.parametrize("with_average", [True, False])
def test_ldl(with_average: bool) -> None:
    prediction, target, averaged = images(3, 2, 3, 15, 18)
    errors = []
    for index in range(2):
        own = prediction[index].numpy(), target[index].numpy(), averaged[index].numpy() if with_average else None
        errors.append(artifact_map_by_numpy(*own) * np.abs(own[0] - own[1]))
    loss = LDLLoss(use_average=with_average)
    assert loss(prediction, target, averaged).item() == pytest.approx(np.mean(errors), rel=1e-9)
    assert loss.wants_average == with_average


@pytest.mark.parametrize("operator", ["sobel", "scharr", "laplacian"])
def test_gradient(operator: str) -> None:
    prediction, target = images(2, 2, 3, 9, 12)
    difference = (prediction - target).numpy()
    kernels = {
        "sobel": [np.outer([1, 2, 1], [-1, 0, 1]), np.outer([-1, 0, 1], [1, 2, 1])],
        "scharr": [np.outer([3, 10, 3], [-1, 0, 1]), np.outer([-1, 0, 1], [3, 10, 3])],
        "laplacian": [np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])],
    }[operator]
    responses = [
        ndimage.correlate(plane, kernel / kernel[kernel > 0].sum(), mode="nearest")
        for plane in difference.reshape(-1, 9, 12)
        for kernel in kernels
    ]
    loss = GradientLoss(operator=operator)
    assert loss(prediction, target).item() == pytest.approx(np.abs(responses).mean(), rel=1e-9)


def test_color() -> None:
    prediction, target = images(2, 2, 3, 16, 12)
    blocks = (prediction - target).numpy().reshape(2, 3, 4, 4, 3, 4).mean(axis=(3, 5))
    assert ColorLoss(factor=4)(prediction, target).item() == pytest.approx(np.abs(blocks).mean(), rel=1e-9)
    matrix = np.array([[-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    expected = np.abs(np.einsum("kc,bchw->bkhw", matrix, blocks)).mean()
    assert ColorLoss(factor=4, space="chroma")(prediction, target).item() == pytest.approx(expected, rel=1e-6)
    gray = target.mean(dim=1, keepdim=True).expand_as(target)
    assert ColorLoss(factor=4, space="chroma")(gray + 0.1, gray).item() == pytest.approx(0, abs=1e-7)
    with pytest.raises(UserError, match="do not fit patches of 12"):
        ColorLoss(factor=32)(prediction, target)


def test_terms_weigh_and_look_at_luma() -> None:
    prediction, target = images(2, 2, 3, 8, 9)
    planes = [
        np.stack([rgb_to_y(image.numpy().transpose(1, 2, 0)) / 255 for image in batch])
        for batch in (prediction, target)
    ]
    term = LossTerm(L1Loss(), weight=0.7, on="y")
    assert term(prediction, target).item() == pytest.approx(0.7 * np.abs(planes[0] - planes[1]).mean(), rel=1e-9)
    half = LossTerm(L1Loss())(prediction.half(), target.float())
    assert half.dtype == torch.float32


def test_terms_refuse_what_is_no_number() -> None:
    with pytest.raises(UserError, match=r"gave \(2, 3\); a loss gives a tensor with one number"):
        LossTerm(lambda prediction, target: prediction - target)(torch.rand(2, 3), torch.rand(2, 3))
