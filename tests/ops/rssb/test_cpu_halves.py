"""Both halves of a residual block on the CPU: the operators against the modules in float64, and when they run."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mambair.archs import halves
from mambair.archs.blocks import RSSB
from mambair.ops.backends import ENVIRONMENT_VARIABLE
from tests.ops.cases import relative_error

# Odd channels, so that vectors overlap; more rows of pixels than a band has, and more pixels than a unit.
SHAPES = {"odd": (2, 9, 35, 37), "one vector": (1, 3, 5, 32), "one pixel": (2, 1, 1, 41)}
LIMIT = 2e-5


def random_block(channels: int, local_block: str = "light_cab", directions: int = 4) -> RSSB:
    torch.manual_seed(1)
    block = RSSB(channels, d_state=5, mlp_ratio=1.2, local_block=local_block, scan_directions=directions)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return block


def scan_half(block: RSSB, x: Tensor, keep: Tensor | None) -> Tensor:
    y = halves.run_scan_half(block, x, keep)
    assert (y is None) == (x.dtype == torch.float64)
    if y is None:
        attended = block.self_attention(block.ln_1(x))
        y = x * block.skip_scale + (attended if keep is None else attended * keep)
    return y


def local_half(block: RSSB, x: Tensor, keep: Tensor | None) -> Tensor:
    y = halves.run_local_half(block, x)
    assert (y is None) == (x.dtype == torch.float64)
    if y is None:
        y = x * block.skip_scale2 + block.conv_blk(block.ln_2(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return y


def outcome(half: Callable, block: RSSB, x: Tensor, keep: Tensor | None, dy: Tensor) -> dict[str, Tensor]:
    """The half's result and all gradients."""
    x = x.clone().requires_grad_()
    y = half(block, x, keep)
    parameters = dict(block.named_parameters())
    found = torch.autograd.grad(y, [x, *parameters.values()], dy, allow_unused=True)
    named = zip(("x", *parameters), found, strict=True)
    return {"y": y.detach()} | {name: gradient for name, gradient in named if gradient is not None}


@pytest.mark.parametrize("half", [scan_half, local_half])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("directions", [1, 4])
def test_matches_float64(half: Callable, shape: tuple[int, ...], directions: int) -> None:
    block = random_block(shape[3], directions=directions)
    x, dy = torch.randn(shape), torch.randn(shape)
    keep = torch.tensor([0.0, 1.25])[: shape[0]].view(-1, 1, 1, 1)
    truth = outcome(half, copy.deepcopy(block).double(), x.double(), keep.double(), dy.double())
    found = outcome(half, block, x, keep, dy)
    assert found.keys() == truth.keys()
    # Of few pixels, the channel attention's gradients cancel to nearly nothing, no more than the errors of others.
    scale = max(gradient.abs().max() for gradient in truth.values())
    errors = {
        name: ((found[name] - truth[name]).abs().max() / max(truth[name].abs().max(), 0.01 * scale)).item()
        for name in truth
    }
    assert {name: error for name, error in errors.items() if not error < LIMIT} == {}


@pytest.mark.parametrize("half", [scan_half, local_half])
def test_same_bits_again_and_without_gradients_and_the_same_on_other_threads(half: Callable) -> None:
    block, x = random_block(37), torch.randn(1, 20, 30, 37)
    dy, threads = torch.randn_like(x), torch.get_num_threads()
    first, second = outcome(half, block, x, None, dy), outcome(half, block, x, None, dy)
    assert all(torch.equal(first[name], second[name]) for name in first)
    with torch.no_grad():
        assert torch.equal(half(block, x, None), first["y"])
    try:
        torch.set_num_threads(3 - min(threads, 2))
        other = outcome(half, block, x, None, dy)
    finally:
        torch.set_num_threads(threads)
    assert all(relative_error(other[name], first[name]) < 1e-5 for name in first)


def test_frozen_parameters_get_no_gradients() -> None:
    block, x = random_block(32), torch.randn(1, 4, 4, 32, requires_grad=True)
    block.requires_grad_(False)
    block.self_attention.out_proj.weight.requires_grad_()
    block(x).sum().backward()
    assert [name for name, p in block.named_parameters() if p.grad is not None] == ["self_attention.out_proj.weight"]
    assert x.grad is not None


def test_takes_steps_where_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    block, x = random_block(32), torch.randn(1, 4, 4, 32)
    assert halves.run_scan_half(block, x, None) is not None
    assert halves.run_local_half(random_block(32, "cab"), x) is None
    assert halves.run_scan_half(random_block(12), torch.randn(1, 4, 4, 12), None) is None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert halves.run_scan_half(block, x, None) is None
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "portable")
    assert halves.run_scan_half(block, x, None) is None


def test_a_second_derivative_is_refused() -> None:
    block, x = random_block(32), torch.randn(1, 4, 4, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()
