"""Colour, pixel types, tensors and JPEG."""

import numpy as np
import pytest
import skimage.data
import torch

from mambair.errors import UserError
from mambair.imaging.color import rgb_to_y, rgb_to_ycbcr, ycbcr_to_rgb
from mambair.imaging.jpeg import jpeg_compress
from mambair.imaging.pixels import to_float, to_uint8
from mambair.imaging.tensors import image_to_tensor, tensor_to_image


def test_ycbcr_of_known_colours() -> None:
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 255]]], np.uint8)
    expected = [[16, 128, 128], [235, 128, 128], [81.481, 90.203, 240], [40.966, 240, 109.786]]
    np.testing.assert_allclose(rgb_to_ycbcr(colours)[0], expected, atol=1e-9)
    np.testing.assert_allclose(rgb_to_y(colours)[0], [row[0] for row in expected], atol=1e-9)


def test_ycbcr_round_trip_for_every_pixel_type() -> None:
    unit = np.random.default_rng(0).random((5, 7, 3))
    for image in (unit, (unit * 255).astype(np.uint8), (unit * 65535).astype(np.uint16)):
        np.testing.assert_allclose(ycbcr_to_rgb(rgb_to_ycbcr(image)), to_float(image, np.float64), atol=1e-12)


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_tensors_are_contiguous_float_in_unit_range(dtype, top: int) -> None:
    image = np.arange(24, dtype=dtype).reshape(2, 4, 3)
    image[0, 0] = top
    tensor = image_to_tensor(image[:, ::-1])
    assert tensor.shape == (3, 2, 4)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert tensor[0, 0, 3] == 1
    assert tensor[2, 1, 0] == pytest.approx(23 / top)


def test_every_uint8_value_survives_the_round_trip() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    np.testing.assert_array_equal(tensor_to_image(image_to_tensor(image)), image)
    np.testing.assert_array_equal(to_uint8(to_float(image)), image)
    np.testing.assert_array_equal(to_uint8(image.astype(np.uint16) * 257), image)


def test_tensor_to_image_clips_and_rounds() -> None:
    tensor = torch.tensor([-0.5, 0.4 / 255, 0.6 / 255, 1.5]).reshape(1, 1, 4)
    assert tensor_to_image(tensor).ravel().tolist() == [0, 0, 1, 255]


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(H, W, C\)"):
        image_to_tensor(np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        tensor_to_image(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_loses_more_at_lower_quality(channels: int) -> None:
    image = skimage.data.astronaut()[64:128, 190:254, :channels]
    errors = []
    for quality in (10, 40, 95):
        compressed = jpeg_compress(image, quality)
        assert compressed.shape == image.shape
        errors.append(np.mean((compressed.astype(float) - image) ** 2))
    assert errors[0] > errors[1] > errors[2] > 0


def test_jpeg_keeps_the_order_of_channels() -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    compressed = jpeg_compress(red, 90)
    assert compressed[..., 0].min() > 190
    assert compressed[..., 2].max() < 10


@pytest.mark.parametrize(
    ("image", "quality"),
    [(np.zeros((8, 8)), 50), (np.zeros((8, 8, 2), np.uint8), 50), (np.zeros((8, 8, 1), np.uint8), 0)],
)
def test_jpeg_refuses(image: np.ndarray, quality: int) -> None:
    with pytest.raises(ValueError, match="expected a"):
        jpeg_compress(image, quality)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_becomes_no_picture(bad: float) -> None:
    tensor = torch.full((3, 4, 5), 0.5)
    tensor[1, 2, 3] = bad
    with pytest.raises(UserError, match="holds NaN or infinite values"):
        tensor_to_image(tensor)
