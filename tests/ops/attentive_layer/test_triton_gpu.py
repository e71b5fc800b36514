"""The parts of an attentive layer on a CUDA GPU: every type, odd channels, poisoned memory, hooks and repeated runs."""

import copy

import pytest
import torch
from torch import Tensor

from mambair.archs import attentive_parts
from mambair.archs.attentive_blocks import AttentiveLayer
from mambair.archs.feed_forward import ConvFFN, GatedConvFFN
from mambair.ops.backends import ENVIRONMENT_VARIABLE

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

# Of a gradient's norm; a bias's is a sum of many roundings.
LIMITS = {torch.float32: 5e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
LIGHT = {"channels": 48, "num_heads": 4, "d_state": 8, "num_tokens": 64, "mlp_ratio": 1.0, "feed_forward": GatedConvFFN}
BASE = {"channels": 174, "num_heads": 6, "d_state": 16, "num_tokens": 128, "mlp_ratio": 2.0, "feed_forward": ConvFFN}
OTHERS = {"window_size": 16, "shift": 8, "inner_rank": 32, "convffn_kernel_size": 5, "qkv_bias": True}
CASES = {"light": LIGHT | OTHERS, "base": BASE | OTHERS}
Outcome = dict[str, Tensor]


def random_layer(name: str) -> AttentiveLayer:
    """In float64 on the GPU, all parameters random."""
    torch.manual_seed(0)
    layer = AttentiveLayer(routing="argmax", **CASES[name]).double()
    with torch.no_grad():
        for key, parameter in layer.named_parameters():
            if not key.endswith(("A_logs", "dt_projs_bias")):
                scale = 0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
                parameter.add_(scale * torch.randn(parameter.shape, dtype=torch.float64))
    return layer.cuda().eval()


def outcome(layer: AttentiveLayer, x: Tensor, noise: Tensor, weights: Tensor) -> Outcome:
    """The layer's result and all gradients; the router, whose choices differ between types, is left out."""
    x = x.detach().requires_grad_()
    y = layer._mix(layer._attend(x), x, layer.norm2, layer.convffn1, layer.scale1)
    y = layer._scan(y, noise.to(torch.float32))
    parameters = dict(layer.named_parameters())
    found = torch.autograd.grad((y * weights.to(y)).sum(), [x, *parameters.values()], allow_unused=True)
    named = zip(("x", *parameters), found, strict=True)
    return {"y": y.detach()} | {name: gradient for name, gradient in named if gradient is not None}


def inputs(channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """(x, noise that leaves no doubt which token is chosen, weights of the result).

    The weights are random: a bias's gradient is a sum of them, which must not cancel, or only roundings would be left.
    """
    generator = torch.Generator().manual_seed(1)
    x, weights = torch.randn(2, 2, 16, 32, channels, generator=generator, dtype=torch.float64).cuda()
    chosen = torch.randint(3, (2, 512), generator=generator)
    return x, torch.ones(2, 512, 128).scatter(2, chosen[..., None], 1e-9).cuda(), weights


def norm_error(found: Tensor, expected: Tensor) -> float:
    if not torch.isfinite(found).all():
        return float("inf")
    scale = expected.double().norm().item()
    return (found.double() - expected.double()).norm().item() / (scale if scale > 0 else 1.0)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", CASES)
def test_layer_matches_float64(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = random_layer(name)
    single = copy.deepcopy(layer).float()
    x, noise, weights = inputs(CASES[name]["channels"])
    noise = noise[..., : CASES[name]["num_tokens"]].contiguous()
    expected = outcome(layer, x, noise, weights)
    poison = torch.full((1 << 26,), torch.nan, device="cuda")
    del poison
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "triton")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
        found, again = (outcome(single, x.float(), noise, weights) for _ in range(2))
    routers = [key for key in expected if ".route." in key]  # gradients of choices without doubt are next to nothing
    errors = {key: norm_error(found[key], expected[key]) for key in expected if key not in routers}
    assert {key: error for key, error in errors.items() if not error < LIMITS[dtype]} == {}
    assert all(torch.equal(found[key], again[key]) for key in found)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("half", [False, True])
def test_every_part_runs_as_one_operator_unless_someone_watches(name: str, half: bool) -> None:
    layer = random_layer(name).float()
    x = inputs(CASES[name]["channels"])[0].float()
    parts = (
        lambda: attentive_parts.run_attention(layer, x),
        lambda: attentive_parts.run_feed_forward(layer.convffn1, layer.norm2, layer.scale1, x, x),
        lambda: attentive_parts.run_state_space(layer, x, None),
    )
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
        assert [part() is not None for part in parts] == [True, True, True]
        for module in (layer.wqkv, layer.convffn1.fc1, layer.assm.out_norm):
            module.register_forward_hook(lambda *_: None)
        assert [part() is None for part in parts] == [True, True, True]
