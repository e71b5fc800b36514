"""Who finds the gradients of a classic CAB's weights: own kernels or the library."""

import pytest
import torch

pytest.importorskip("triton")

from mambair.ops.rssb.local_key import LocalHalf
from mambair.ops.rssb.weights import LibraryWeights, OwnWeights, weight_gradients

GPU = torch.device("cuda", 0)


def chosen(channels: int, hidden: int, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch, capability: float) -> type:
    """For a GPU of that compute capability, which need not be there."""
    major, minor = (int(part) for part in str(capability).split("."))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, minor))
    key = LocalHalf(False, 2, 8, 8, channels, hidden, 2, torch.float32, kind, torch.float32, 1e-5, GPU)
    return type(weight_gradients(key))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("capability", [8.0, 8.6, 8.9, 9.0, 12.0])
@pytest.mark.parametrize(("channels", "hidden"), [(180, 60), (48, 16), (96, 32), (192, 64)])
def test_own_for_the_classic_network_and_the_unet(
    channels: int, hidden: int, kind: torch.dtype, capability: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(channels, hidden, kind, monkeypatch, capability) is OwnWeights


@pytest.mark.parametrize(
    ("channels", "hidden", "kind", "capability"),
    [
        (180, 60, torch.float32, 9.0), (180, 60, torch.float16, 7.5), (384, 128, torch.bfloat16, 9.0),
        (180, 90, torch.bfloat16, 9.0), (24, 8, torch.bfloat16, 9.0),
    ],
)  # fmt: skip
def test_library_for_the_rest(
    channels: int, hidden: int, kind: torch.dtype, capability: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(channels, hidden, kind, monkeypatch, capability) is LibraryWeights
