"""The receptive field of networks whose support is known."""

import numpy as np
import pytest
import torch
from torch import nn

from mambair.analysis.erf import centred_squares, contribution_map, display_map, support_size


def convolutions(depth: int) -> nn.Sequential:
    """3x3 convolutions with positive weights: every pixel of the support contributes."""
    layers = [nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(depth)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1.0)
    return nn.Sequential(*layers)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_stacked_3x3_convolutions_see_their_support(depth: int) -> None:
    contributions = contribution_map(convolutions(depth), [torch.rand(1, 21, 19) for _ in range(2)])
    assert contributions.shape == (21, 19)
    assert support_size(contributions) == (2 * depth + 1, 2 * depth + 1)
    assert centred_squares(contributions, [1.0])[0].side == 2 * depth + 1
    np.testing.assert_array_equal(contributions, contributions[::-1, ::-1])  # centred on pixel (10, 9)


def test_the_centre_of_an_enlarged_result_lies_over_the_central_pixel() -> None:
    network = nn.Upsample(scale_factor=3, mode="nearest")
    contributions = contribution_map(network, [torch.rand(3, 8, 10)], scale=3)
    assert support_size(contributions) == (1, 1)
    assert contributions[4, 5] == 3 * 9  # three channels, nine pixels of the result


def test_squares_hold_their_share() -> None:
    uniform = np.ones((101, 101))
    sides = {square.share: square for square in centred_squares(uniform)}
    assert sides[0.5].side == 73 and sides[0.5].area == pytest.approx(73**2 / 101**2)  # the smallest odd side over 71.4
    assert sides[0.99].side == 101
    point = np.zeros((5, 5))
    point[2, 2] = 1
    assert all(square.side == 1 for square in centred_squares(point))
    assert support_size(np.zeros((3, 3))) == (0, 0)


def test_display_is_logarithmic_from_0_to_1() -> None:
    np.testing.assert_allclose(display_map(np.array([[1000.0, 1.0, 1e-9, 0.0]])), [[1, 0.5, 0, 0]])
    assert (display_map(np.zeros((2, 2))) == 0).all()
