"""The U-Net discriminator with spectral normalisation that real-world super-resolution trains against."""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm

from mambair.archs.network import constructor_arguments
from mambair.registry import ARCHS


@ARCHS.register()
class UNetDiscriminatorSN(nn.Module):
    """Real-ESRGAN's discriminator: says of every pixel how real it looks.

    (B, num_in_ch, H, W) -> logits (B, 1, H, W); H, W >= 8. Keys are those of Real-ESRGAN's discriminator files
    (`torch.nn.utils.spectral_norm`, not its successor in `parametrizations`, names them so).

    Args:
        num_in_ch: image channels.
        num_feat: channels at full resolution; they double at each of three halvings.
        skip_connection: add the encoder's features to the decoder's.
    """

    def __init__(self, num_in_ch: int = 3, num_feat: int = 64, skip_connection: bool = True) -> None:
        hyperparameters = constructor_arguments(locals())
        super().__init__()
        self.hyperparameters = hyperparameters
        self.skip_connection = skip_connection

        def conv(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> nn.Module:
            return spectral_norm(nn.Conv2d(in_channels, out_channels, kernel, stride, padding=1, bias=False))

        self.conv0 = nn.Conv2d(num_in_ch, num_feat, 3, padding=1)
        self.conv1 = conv(num_feat, 2 * num_feat, kernel=4, stride=2)
        self.conv2 = conv(2 * num_feat, 4 * num_feat, kernel=4, stride=2)
        self.conv3 = conv(4 * num_feat, 8 * num_feat, kernel=4, stride=2)
        self.conv4 = conv(8 * num_feat, 4 * num_feat)
        self.conv5 = conv(4 * num_feat, 2 * num_feat)
        self.conv6 = conv(2 * num_feat, num_feat)
        self.conv7 = conv(num_feat, num_feat)
        self.conv8 = conv(num_feat, num_feat)
        self.conv9 = nn.Conv2d(num_feat, 1, 3, padding=1)
        self.act = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        level0 = self.act(self.conv0(x))  # (B, F, H, W)
        level1 = self.act(self.conv1(level0))  # (B, 2F, H/2, W/2)
        level2 = self.act(self.conv2(level1))  # (B, 4F, H/4, W/4)
        y = self.act(self.conv3(level2))  # (B, 8F, H/8, W/8)
        for conv, level in ((self.conv4, level2), (self.conv5, level1), (self.conv6, level0)):
            y = F.interpolate(y, size=level.shape[2:], mode="bilinear", align_corners=False)
            y = self.act(conv(y))
            if self.skip_connection:
                y = y + level
        return self.conv9(self.act(self.conv8(self.act(self.conv7(y)))))
