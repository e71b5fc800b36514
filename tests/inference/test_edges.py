"""Cut-outs, masks and gray photos as they should look, and results that are no numbers."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from mambair import load_model
from mambair.errors import UserError
from mambair.inference.edges import bled, within_neighbours
from mambair.inference.restorer import Restorer

CPU = torch.device("cpu")


class Network(nn.Module):
    """A x2 network that takes three channels and computes what it is told to, of the enlarged image."""

    scale, in_channels, size_multiple = 2, 3, 1

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        return self.function(nn.functional.interpolate(lq, scale_factor=2, mode="bilinear"))


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    """The network in the package."""
    return load_model(device="cpu")


def disk(size: int, radius: float) -> np.ndarray:
    """How much of each pixel a disk in the middle covers, (size, size) in [0, 1]."""
    rows, columns = (np.mgrid[: size * 8, : size * 8] + 0.5) / 8 - size / 2
    return (np.hypot(rows, columns) < radius).reshape(size, 8, size, 8).mean(axis=(1, 3))


@pytest.mark.parametrize("color", [(255, 255, 255), (200, 30, 30)])
@pytest.mark.parametrize("hidden", [(0, 0, 0), (0, 255, 0)])
def test_colours_of_what_is_invisible_do_not_show(restorer: Restorer, color: tuple, hidden: tuple) -> None:
    alpha = disk(32, 11)
    colors = np.where((alpha > 0)[:, :, None], color, hidden)
    cut_out = np.dstack([colors, np.rint(alpha * 255)]).astype(np.uint8)
    restored = restorer.restore(cut_out).astype(float)
    weight = restored[:, :, 3:] / 255
    for ground in (0, 255):
        shown = restored[:, :, :3] * weight + ground * (1 - weight)
        wanted = np.array(color) * weight + ground * (1 - weight)
        assert np.abs(shown - wanted).max() <= 8


def test_faint_colours_are_not_spread() -> None:
    colors = torch.tensor([[[[0.9, 0.1, 0.0, 0.0]]]])
    alpha = torch.tensor([[[[1.0, 1 / 255, 0.0, 0.0]]]])
    assert torch.allclose(bled(colors, alpha), torch.tensor([[[[0.9, 0.1, 0.9, 0.9]]]]))
    nothing = torch.zeros_like(alpha)
    assert torch.equal(bled(colors, nothing), colors)  # no visible colour to spread
    assert bled(colors, torch.ones_like(alpha)) is colors


@pytest.mark.parametrize("kind", ["gray", "color", "alpha"])
def test_masks_stay_clean(restorer: Restorer, kind: str) -> None:
    mask = np.where(np.hypot(*np.mgrid[-24:24, -24:24]) < 15, 255, 0).astype(np.uint8)
    image = {
        "gray": mask,
        "color": np.repeat(mask[:, :, None], 3, axis=2),
        "alpha": np.dstack([np.full((48, 48, 3), 99, np.uint8), mask]),
    }[kind]
    restored = restorer.restore(image)
    restored = restored[:, :, -1] if restored.ndim == 3 else restored
    wanted = np.repeat(np.repeat(mask, 2, axis=0), 2, axis=1)
    near = ndimage.maximum_filter(wanted, 13) != ndimage.minimum_filter(wanted, 13)
    assert (restored[~near] == wanted[~near]).all()
    assert (restored[near] != wanted[near]).any()  # edges are drawn by the network


def test_results_stay_in_the_range_of_their_neighbours() -> None:
    planes = torch.zeros(1, 1, 9, 9)
    planes[..., 4, 4] = 1
    restored = within_neighbours(torch.full((1, 1, 18, 18), 0.5), planes)
    assert (restored[..., 4:14, 4:14] == 0.5).all() and restored.sum() == 50


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_photos_of_three_channels_are_not_tinted(dtype: type) -> None:
    tinting = Network(lambda image: image * torch.tensor([0.9, 1.0, 0.8])[:, None, None])
    gray = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (2, 8, 9, 1), dtype=dtype)
    images = np.repeat(gray, 3, axis=3)
    images[1, 3, 3, 0] ^= 64  # the other one has a colour
    restored = Restorer(tinting, device=CPU, batch=2).restore(images)
    assert (restored[0] == restored[0, :, :, :1]).all() and (restored[1] != restored[1, :, :, :1]).any()
    alone = Restorer(tinting, device=CPU).restore(gray[0])
    np.testing.assert_array_equal(restored[0, :, :, :1], alone)
    with_alpha = np.dstack([images[0], np.full((8, 9), np.iinfo(dtype).max, dtype)])
    np.testing.assert_array_equal(Restorer(tinting, device=CPU).restore(with_alpha)[:, :, :1], alone)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("tile", [None, 4, "auto"])
def test_results_that_are_no_numbers_become_no_picture(bad: float, tile: int | str | None) -> None:
    def spoil(image: torch.Tensor) -> torch.Tensor:
        image = image.clone()
        image[:, 1, 3, 3] = bad
        return image

    restorer = Restorer(Network(spoil), device=CPU, tile=tile)
    with pytest.raises(UserError, match="the network's result holds NaN or infinite values"):
        restorer.restore(np.full((8, 9, 3), 99, np.uint8))
