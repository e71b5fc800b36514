"""EDSR, from files in the layouts that its weights come in."""

import pytest
import torch
from torch import nn

from mambair.archs import EDSR, build_network, load_network, save_weights
from mambair.errors import UserError

MEAN = torch.tensor([0.4488, 0.4371, 0.4040])


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class OfficialBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution(8, 8), nn.ReLU(), convolution(8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class Official(nn.Module):
    """The network under its authors' names, on images of 0 to 255; their files hold the mean as convolutions."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.sub_mean, self.add_mean = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        for layer, sign in ((self.sub_mean, -1), (self.add_mean, 1)):
            nn.init.dirac_(layer.weight)
            layer.bias.data = sign * 255 * MEAN
        self.head = nn.Sequential(convolution(3, 8))
        self.body = nn.Sequential(OfficialBlock(), OfficialBlock(), convolution(8, 8))
        steps = {2: [2], 3: [3], 4: [2, 2]}[scale]
        layers = [layer for factor in steps for layer in (convolution(8, 8 * factor**2), nn.PixelShuffle(factor))]
        self.tail = nn.Sequential(nn.Sequential(*layers), convolution(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(self.sub_mean(x))
        return self.add_mean(self.tail(x + self.body(x)))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_authors_files_restore_as_their_network(tmp_path, scale):
    official = Official(scale)
    torch.save(official.state_dict(), tmp_path / "edsr.pt")
    network = build_network({"type": "spandrel", "path": str(tmp_path / "edsr.pt")})
    assert (network.scale, network.in_channels, len(network.body)) == (scale, 3, 2)
    x = torch.rand(2, 3, 7, 9)
    torch.testing.assert_close(network(x), official(x * 255) / 255, atol=1e-5, rtol=1e-4)


def test_files_under_basicsrs_names(tmp_path):
    network = build_network({"type": "EDSR", "upscale": 4, "num_feat": 8, "num_block": 3}).eval()
    assert {"conv_first.weight", "body.2.conv2.bias", "conv_after_body.weight", "upsample.2.weight"} <= set(
        network.state_dict()
    )
    torch.save({"params": network.state_dict()}, tmp_path / "edsr.pth")
    loaded = build_network({"type": "spandrel", "path": str(tmp_path / "edsr.pth")})
    x = torch.rand(1, 3, 6, 5)
    assert torch.equal(loaded(x), network(x)) and not loaded.training


def test_published_sizes():
    # The authors' tables: EDSR-baseline has 1.37 M parameters at x2, EDSR 40.7 M.
    with torch.device("meta"):
        small, large = EDSR(upscale=2), EDSR(upscale=2, num_feat=256, num_block=32, res_scale=0.1)
    assert sum(parameter.numel() for parameter in small.parameters()) == 1_369_859
    assert sum(parameter.numel() for parameter in large.parameters()) == 40_729_603


def test_the_large_network_scales_its_residuals(tmp_path):
    torch.save(EDSR(upscale=2, num_feat=256, num_block=1).state_dict(), tmp_path / "large.pth")
    assert build_network({"type": "spandrel", "path": str(tmp_path / "large.pth")}).hyperparameters["res_scale"] == 0.1


def test_saved_here_it_loads_by_itself_and_can_be_trained(tmp_path):
    network = build_network({"type": "EDSR", "upscale": 3, "num_feat": 8, "num_block": 2, "img_range": 1.0})
    network(torch.rand(1, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    save_weights(network, tmp_path / "edsr.pth")
    again = load_network(tmp_path / "edsr.pth")
    x = torch.rand(1, 3, 5, 5)
    assert torch.equal(again(x), network(x)) and again.img_range == 1.0


def test_weights_that_only_look_like_it_are_refused(tmp_path):
    state = EDSR(upscale=2, num_feat=8, num_block=1).state_dict()
    torch.save({**state, "conv_hr.weight": torch.zeros(1)}, tmp_path / "srresnet.pth")
    with pytest.raises(UserError, match=r"srresnet\.pth: these look like EDSR's, but .*conv_hr\.weight"):
        build_network({"type": "spandrel", "path": str(tmp_path / "srresnet.pth")})
    del state["conv_last.weight"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(UserError, match=r"conv_last\.weight is missing"):
        build_network({"type": "spandrel", "path": str(tmp_path / "part.pth")})
