"""layer_norm where the kernels do not run: PyTorch's."""

import torch
import torch.nn.functional as F

from mambair.archs.layers import LayerNorm
from mambair.ops import layer_norm


def test_is_torchs_on_the_cpu() -> None:
    x, weight, bias = torch.randn(2, 3, 8), torch.randn(8), torch.randn(8)
    expected = F.layer_norm(x, (8,), weight, bias, 1e-3)
    torch.testing.assert_close(layer_norm(x, weight, bias, 1e-3, True), expected, rtol=0, atol=0)


def test_module_has_the_keys_of_torchs() -> None:
    assert list(LayerNorm(4).state_dict()) == list(torch.nn.LayerNorm(4).state_dict())


def test_module_is_exported_as_torchs() -> None:
    program = torch.export.export(LayerNorm(4), (torch.randn(2, 4),))
    assert "aten.layer_norm" in str(program.graph)
