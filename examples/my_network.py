"""A network of one's own, built on MambaIR's scan: any nn.Module that maps images to images."""

from torch import Tensor, nn

from mambair.archs import VSSM
from mambair.registry import ARCHS


@ARCHS.register()
class MyNetwork(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, 3, H * upscale, W * upscale), for any H and W."""

    def __init__(self, upscale: int = 2, channels: int = 24, blocks: int = 2) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(blocks))
        self.blocks = nn.ModuleList(VSSM(channels, d_state=8, mlp_ratio=1.5) for _ in range(blocks))
        self.last = nn.Sequential(nn.Conv2d(channels, 3 * upscale**2, 3, padding=1), nn.PixelShuffle(upscale))
        self.enlarge = nn.Upsample(scale_factor=upscale, mode="bilinear")

    def forward(self, x: Tensor) -> Tensor:
        features = self.first(x).permute(0, 2, 3, 1)  # (B, H, W, C), as VSSM takes it
        for norm, block in zip(self.norms, self.blocks, strict=True):
            features = features + block(norm(features))
        return self.enlarge(x) + self.last(features.permute(0, 3, 1, 2))
