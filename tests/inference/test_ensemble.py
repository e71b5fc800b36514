"""Self-ensemble: eight orientations, each turned back, averaged before rounding."""

import torch
import torch.nn.functional as F

from mambair.inference.ensemble import self_ensemble


def test_a_pointwise_upsampler_is_unchanged() -> None:
    lq = torch.rand(2, 3, 5, 8)
    restored = self_ensemble(lambda image: F.interpolate(image, scale_factor=2, mode="nearest"), lq)
    torch.testing.assert_close(restored, F.interpolate(lq, scale_factor=2, mode="nearest"))


def test_sees_the_eight_orientations_once_each() -> None:
    lq = torch.arange(6.0).reshape(1, 1, 2, 3)
    seen = []
    self_ensemble(lambda image: seen.append(image) or image, lq)
    turned = [torch.rot90(image, turns, (-2, -1)) for image in (lq, lq.flip(-1)) for turns in range(4)]
    assert len(seen) == 8
    for image in turned:
        assert sum(image.shape == other.shape and torch.equal(image, other) for other in seen) == 1


def test_result_is_equivariant_for_a_network_that_is_not() -> None:
    convolution = torch.nn.Conv2d(1, 1, 3, padding=1)
    lq = torch.rand(1, 1, 6, 9)
    with torch.inference_mode():
        torch.testing.assert_close(
            self_ensemble(convolution, lq.transpose(-1, -2)), self_ensemble(convolution, lq).transpose(-1, -2)
        )
        torch.testing.assert_close(self_ensemble(convolution, lq.flip(-1)), self_ensemble(convolution, lq).flip(-1))


def test_half_precision_results_are_averaged_in_float32() -> None:
    assert self_ensemble(lambda image: image.half(), torch.rand(1, 1, 4, 4)).dtype == torch.float32
