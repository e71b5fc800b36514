"""The operators of a block's halves on a CUDA GPU: every type, odd sizes, poisoned memory, graphs and checkpoints."""

import copy
import functools

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mambair.archs import halves
from mambair.archs.blocks import RSSB
from mambair.ops.backends import ENVIRONMENT_VARIABLE

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

# Of a gradient's norm; a bias's is a sum of many roundings.
LIMITS = {torch.float32: 2e-5, torch.float16: 8e-3, torch.bfloat16: 3e-2}
CASES = [
    {"channels": 60, "shape": (2, 8, 24), "d_state": 10, "mlp_ratio": 1.2, "local_block": "light_cab"},
    {"channels": 180, "shape": (2, 8, 16), "d_state": 16, "mlp_ratio": 2.0, "local_block": "cab"},
    {"channels": 48, "shape": (1, 9, 13), "d_state": 16, "mlp_ratio": 1.5, "local_block": "cab"},
    {"channels": 33, "shape": (3, 7, 9), "d_state": 5, "mlp_ratio": 1.3, "local_block": "light_cab"},
    {"channels": 40, "shape": (1, 1, 70), "d_state": 4, "mlp_ratio": 1.0, "local_block": "light_cab"},
]


def random_block(**options) -> RSSB:
    """In float64 on the GPU, all parameters random."""
    generator = torch.Generator().manual_seed(0)
    block = RSSB(**{name: value for name, value in options.items() if name != "shape"}).double()
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if not name.endswith(("A_logs", "dt_projs_bias")):
                scale = 0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return block.cuda()


def random_inputs(channels: int, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """(x, keep, weights of the result), float64."""
    generator = torch.Generator().manual_seed(1)
    x, weights = torch.randn(2, *shape, channels, generator=generator, dtype=torch.float64).cuda()
    return x, torch.rand(shape[0], 1, 1, 1, generator=generator, dtype=torch.float64).cuda() + 0.5, weights


def outcome(block: RSSB, x: Tensor, keep: Tensor, weights: Tensor) -> dict[str, Tensor]:
    x = x.detach().requires_grad_()
    y = block(x, keep)
    found = torch.autograd.grad((y * weights.to(y)).sum(), [x, *block.parameters()])
    names = [name for name, _ in block.named_parameters()]
    return {"y": y.detach(), "x": found[0]} | dict(zip(names, found[1:], strict=True))


@functools.cache
def exact_outcome(case: int) -> tuple[RSSB, tuple[Tensor, Tensor, Tensor], dict[str, Tensor]]:
    """A block, its inputs and what it yields, in float64."""
    block, inputs = random_block(**CASES[case]), random_inputs(CASES[case]["channels"], CASES[case]["shape"])
    return block, inputs, outcome(block, *inputs)


def norm_error(found: Tensor, expected: Tensor) -> float:
    if not torch.isfinite(found).all():
        return float("inf")
    scale = expected.double().norm().item()
    return (found.double() - expected.double()).norm().item() / (scale if scale > 0 else 1.0)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("options", CASES)
def test_block_matches_float64(options: dict, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    block, (x, keep, weights), expected = exact_outcome(CASES.index(options))
    single = copy.deepcopy(block).float()
    poison = torch.full((1 << 26,), torch.nan, device="cuda")
    del poison
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "triton")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
        found = outcome(single, x.float(), keep.float(), weights)
    assert found["y"].dtype == torch.float32
    assert {name: e for name in found if not (e := norm_error(found[name], expected[name])) < LIMITS[dtype]} == {}


@pytest.mark.parametrize("options", CASES[:2])
def test_both_halves_run_as_one_operator_each(options: dict) -> None:
    block = random_block(**options).float()
    x = random_inputs(options["channels"], options["shape"])[0].float()
    assert halves.run_scan_half(block, x, None) is not None
    assert halves.run_local_half(block, x) is not None


@pytest.mark.parametrize("options", CASES[:2])
def test_steps_find_the_same(options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook on a module has the block computed step by step."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # its products differ by 5e-4 from way to way
    block = random_block(**options).float()
    x, keep, weights = (tensor.float() for tensor in random_inputs(options["channels"], options["shape"]))
    found = outcome(block, x, keep, weights)
    calls = []
    for module in (block.self_attention.in_proj, block.conv_blk.cab):
        module.register_forward_hook(lambda *_: calls.append(1))
    expected = outcome(block, x, keep, weights)
    assert len(calls) == 2
    assert {name: e for name in found if not (e := norm_error(found[name], expected[name])) < 1e-4} == {}


@pytest.mark.parametrize("options", CASES[:2])
def test_results_repeat_bit_by_bit_also_with_checkpoints(options: dict) -> None:
    block = random_block(**options).float()
    x, keep, weights = (tensor.float() for tensor in random_inputs(options["channels"], options["shape"]))
    with torch.autocast("cuda", dtype=torch.bfloat16):
        first, second = outcome(block, x, keep, weights), outcome(block, x, keep, weights)
        assert all(torch.equal(first[name], second[name]) for name in first)
        x = x.requires_grad_()
        y = checkpoint(block, x, keep, use_reentrant=False)
        (d_x,) = torch.autograd.grad((y * weights.to(y)).sum(), [x])
    assert torch.equal(y, first["y"])
    assert torch.equal(d_x, first["x"])


@pytest.mark.parametrize("options", CASES)
def test_results_without_gradients_are_those_with_them(options: dict) -> None:
    """Which are stored less, not computed otherwise."""
    block = random_block(**options).float()
    x, keep, _ = (tensor.float() for tensor in random_inputs(options["channels"], options["shape"]))
    with torch.autocast("cuda", dtype=torch.bfloat16):
        expected = block(x, keep)
        with torch.no_grad():
            found = block(x, keep)
    assert expected.requires_grad
    assert torch.equal(found, expected)


@pytest.mark.parametrize("options", CASES[:2])
def test_replays_in_a_cuda_graph_with_the_parameters_of_the_day(options: dict) -> None:
    block = random_block(**options).float().requires_grad_(False)
    x = random_inputs(options["channels"], options["shape"])[0].float()
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
        block(x)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = block(x)
        for parameter in block.parameters():
            parameter.data.mul_(0.9)
        expected = block(x)
        found.fill_(torch.nan)
        graph.replay()
    assert torch.equal(found, expected)


def test_frozen_parameters_get_no_gradient() -> None:
    options = CASES[0]
    block = random_block(**options).float().requires_grad_(False)
    block.skip_scale.requires_grad_()
    x = random_inputs(options["channels"], options["shape"])[0].float()
    block(x).sum().backward()
    assert [name for name, parameter in block.named_parameters() if parameter.grad is not None] == ["skip_scale"]


def test_products_keep_their_type_under_another_autocast() -> None:
    """A backward pass under autocast, of a forward pass without it."""
    options = CASES[0]
    block = random_block(**options).float()
    x, keep, weights = (tensor.float() for tensor in random_inputs(options["channels"], options["shape"]))
    expected = outcome(block, x, keep, weights)
    y = block(x, keep)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        (y * weights).sum().backward()
    names = dict(block.named_parameters())
    assert {name for name, parameter in names.items() if not torch.equal(parameter.grad, expected[name])} == set()
