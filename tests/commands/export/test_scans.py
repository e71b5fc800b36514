"""The scans as they stand in ONNX files, against their definition in double precision."""

import pytest
import torch
from torch import Tensor, nn

from mambair.commands.export.tracing import INPUT, to_onnx
from mambair.ops import selective_scan
from mambair.ops.two_level import EXPORTED_CHUNKS, UNROLLED

CHANNELS, STATES, GROUPS = 4, 3, 2


class Scanned(nn.Module):
    """A scan over the pixels of an image, with every pixel of every channel a different step."""

    in_channels = CHANNELS

    def __init__(self, softplus: bool) -> None:
        super().__init__()
        self.softplus = softplus
        self.register_buffer("A", -torch.rand(CHANNELS, STATES) * 3)
        self.register_buffer("bias", torch.randn(CHANNELS))
        self.register_buffer("mixing", torch.randn(2 * GROUPS * STATES, CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        u = x.flatten(2)
        B, C = (self.mixing @ u).view(x.shape[0], 2, GROUPS, STATES, -1).unbind(1)
        delta = u.flip(2) * 4 if self.softplus else u.flip(2).abs()
        y, last = selective_scan(
            u,
            delta,
            self.A,
            B,
            C,
            delta_bias=self.bias if self.softplus else None,
            delta_softplus=self.softplus,
            return_last_state=True,
            backend="auto" if x.dtype == torch.float32 else "reference",
        )
        return y + last.sum(dim=2, keepdim=True)


@pytest.mark.parametrize("softplus", [True, False])
def test_a_scan_is_exact_at_every_length(softplus: bool) -> None:
    import onnxruntime

    torch.manual_seed(0)
    module = Scanned(softplus)
    model = to_onnx(module, None, False)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    truth = Scanned(softplus).double()
    truth.load_state_dict(module.state_dict())
    for height, width in ((1, 1), (5, 7), (1, EXPORTED_CHUNKS[-1] * UNROLLED), (33, 40)):
        x = torch.randn(3, CHANNELS, height, width)
        (found,) = session.run(None, {INPUT: x.numpy()})
        expected = truth(x.double())
        assert (torch.from_numpy(found) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_strong_and_weak_decays_are_safe() -> None:
    import onnxruntime

    module = Scanned(True)
    module.A.copy_(torch.tensor([[-1e-4, -1.0, -1e3]]).expand(CHANNELS, -1))
    session = onnxruntime.InferenceSession(to_onnx(module, (24, 20), False).SerializeToString())
    truth = Scanned(True).double()
    truth.load_state_dict(module.state_dict())
    x = 10 * torch.randn(1, CHANNELS, 24, 20)
    (found,) = session.run(None, {INPUT: x.numpy()})
    expected = truth(x.double())
    assert (torch.from_numpy(found) - expected).abs().max() < 1e-5 * expected.abs().max()
