"""layer_norm on a CUDA GPU, against float64: every type, odd sizes, poisoned memory."""

import pytest
import torch
import torch.nn.functional as F

from mambair.ops import layer_norm

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

LIMITS = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("shape", [(1, 1), (4, 64, 64, 180), (3, 7, 5, 33), (2, 9, 1000)])
def test_matches_float64(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    *_, channels = shape
    inputs = [
        torch.randn(shape, device="cuda") + 0.3,
        torch.randn(channels, device="cuda"),
        torch.randn(channels).cuda(),
    ]
    inputs = [tensor.to(dtype).requires_grad_() for tensor in inputs]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    weights = torch.randn(shape, device="cuda")
    torch.full((1 << 22,), torch.nan, device="cuda")  # what is not written shows
    y = layer_norm(*inputs, 1e-5, True)
    expected = F.layer_norm(exact[0], (channels,), *exact[1:], 1e-5)
    assert y.dtype == dtype
    assert "LayerNormFunction" in type(y.grad_fn).__name__
    found = (y, *torch.autograd.grad((y * weights.to(dtype)).sum(), inputs))
    wanted = (expected, *torch.autograd.grad((expected * weights.to(dtype).double()).sum(), exact))
    for one, other in zip(found, wanted, strict=True):
        # Of one channel nothing is left, and its gradient is nothing.
        assert (one.double() - other).norm() <= LIMITS[dtype] * other.norm() + 1e-6


def test_autocast() -> None:
    x, weight, bias = torch.randn(5, 12, device="cuda"), torch.ones(12, device="cuda"), torch.zeros(12, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        assert layer_norm(x, weight, bias, 1e-5, True).dtype == torch.bfloat16
        assert layer_norm(x.bfloat16(), weight, bias, 1e-5, False).dtype == torch.float32
