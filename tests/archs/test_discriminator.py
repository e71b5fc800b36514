import pytest
import torch

from mambair.archs import build_network
from mambair.archs.discriminator_arch import UNetDiscriminatorSN

# Real-ESRGAN_x4plus_netD.pth: every key with its shape.
SPECTRAL = {1: (128, 64, 4), 2: (256, 128, 4), 3: (512, 256, 4), 4: (256, 512, 3), 5: (128, 256, 3), 6: (64, 128, 3)}
SPECTRAL |= {7: (64, 64, 3), 8: (64, 64, 3)}


def test_keys_and_shapes_as_in_real_esrgan_files():
    expected = {"conv0.weight": (64, 3, 3, 3), "conv0.bias": (64,), "conv9.weight": (1, 64, 3, 3), "conv9.bias": (1,)}
    for number, (out_channels, in_channels, kernel) in SPECTRAL.items():
        expected[f"conv{number}.weight_orig"] = (out_channels, in_channels, kernel, kernel)
        expected[f"conv{number}.weight_u"] = (out_channels,)
        expected[f"conv{number}.weight_v"] = (in_channels * kernel * kernel,)
    network = build_network({"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 64, "skip_connection": True})
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == expected


@pytest.mark.parametrize("size", [(8, 8), (13, 22), (32, 16)])
def test_one_logit_per_pixel_and_gradients(size):
    network = UNetDiscriminatorSN(num_feat=8)
    x = torch.rand(2, 3, *size, requires_grad=True)
    logits = network(x)
    assert logits.shape == (2, 1, *size)
    logits.sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_skip_connection_changes_the_output():
    torch.manual_seed(0)
    with_skip = UNetDiscriminatorSN(num_feat=8).eval()
    without = UNetDiscriminatorSN(num_feat=8, skip_connection=False).eval()
    without.load_state_dict(with_skip.state_dict())
    x = torch.rand(1, 3, 16, 16)
    assert not torch.allclose(with_skip(x), without(x))


def test_spectral_norm_holds_the_largest_singular_value_at_one():
    torch.manual_seed(0)
    network = UNetDiscriminatorSN(num_feat=8)
    with torch.no_grad():
        for _ in range(50):  # power iterations run in training mode
            network(torch.rand(1, 3, 8, 8))
    assert torch.linalg.matrix_norm(network.conv4.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)
