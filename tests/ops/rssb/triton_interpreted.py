"""Run by test_triton_interpreter.py in a process of its own, since Triton reads TRITON_INTERPRET when it is imported.

Prints one JSON object: case -> output or parameter name -> relative error against the modules in float64.
"""

import copy
import json
import os
from collections.abc import Iterator

import torch
from torch import Tensor

from mambair.archs import halves
from mambair.archs.blocks import RSSB
from mambair.ops.backends import ENVIRONMENT_VARIABLE
from mambair.ops.rssb import interface
from mambair.ops.rssb.weights import Tile
from tests.ops.cases import relative_error
from tests.ops.rssb import sum_cases
from tests.ops.rssb.weight_cases import both_outcomes, sums_outcomes, tile_of

HALF, CPU = torch.float16, torch.device("cpu")


def random_block(channels: int, seed: int = 0, **options) -> RSSB:
    """A block in float64 whose parameters are all random."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # which the modules' own initial values come from
    block = RSSB(channels, **options).double()
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if not name.endswith(("A_logs", "dt_projs_bias")):
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(0.3 * noise if parameter.ndim == 1 else 0.2 * noise)
    return block


def result(block: RSSB, half: str, x: Tensor, keep: Tensor | None) -> Tensor:
    """By the operator or, in float64, step by step."""
    if half == "scan":
        y = halves.run_scan_half(block, x, keep)
        if y is None:
            attended = block.self_attention(block.ln_1(x))
            y = x * block.skip_scale + (attended if keep is None else attended * keep)
        return y
    y = halves.run_local_half(block, x)
    if y is None:
        local = block.conv_blk(block.ln_2(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y = x * block.skip_scale2 + local
    return y


def outcome(block: RSSB, half: str, x: Tensor, keep: Tensor | None, weights: Tensor) -> dict[str, Tensor]:
    """The half's result, with gradients and without, and all gradients."""
    with torch.no_grad():
        inferred = result(block, half, x, keep)
    x = x.detach().requires_grad_()
    y = result(block, half, x, keep)
    used = {name: parameter for name, parameter in block.named_parameters() if is_used(name, half)}
    found = torch.autograd.grad((y * weights.to(y)).sum(), [x, *used.values()])
    return {"y": y, "y without gradients": inferred, "x": found[0]} | dict(zip(used, found[1:], strict=True))


def is_used(name: str, half: str) -> bool:
    first = name.startswith(("ln_1", "self_attention")) or name == "skip_scale"
    return first == (half == "scan")


def case(
    half: str, *, channels: int, shape: tuple[int, int, int], dtype: torch.dtype = torch.float32, keep: bool = False,
    **options,
) -> dict[str, float]:  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    block = random_block(channels, **options)
    x = torch.randn(*shape, channels, generator=generator, dtype=torch.float64)
    weights = torch.randn(*shape, channels, generator=generator, dtype=torch.float64)
    factors = torch.rand(shape[0], 1, 1, 1, generator=generator, dtype=torch.float64) + 0.5 if keep else None
    os.environ[ENVIRONMENT_VARIABLE] = "reference"
    expected = outcome(block, half, x, factors, weights)
    os.environ[ENVIRONMENT_VARIABLE] = "triton"
    plain = copy.deepcopy(block).float()
    x32, factors32 = x.float(), None if factors is None else factors.float()
    assert interface.product_type(x32, tuple(plain.parameters())) is not None
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        found = outcome(plain, half, x32, factors32, weights)
    assert found["y"].dtype == torch.float32
    return {name: relative_error(found[name], expected[name]) for name in expected}


def weights_case(shape: tuple[int, int, int], C: int, J: int, tile: Tile | None = None) -> dict[str, float]:
    tile = tile or tile_of(C, J, HALF)
    return errors(both_outcomes(shape, C, J, HALF, torch.float32, CPU, tile))


def errors(outcomes: tuple[dict[str, Tensor], dict[str, Tensor]]) -> dict[str, float]:
    found, expected = outcomes
    return {name: relative_error(found[name], expected[name]) for name in expected}


def all_cases() -> Iterator[tuple[str, dict[str, float]]]:
    scan = {"d_state": 2, "local_block": "none"}
    yield "scan", case("scan", channels=6, shape=(2, 3, 5), keep=True, mlp_ratio=1.5, **scan)
    yield (
        "scan, one direction",
        case("scan", channels=5, shape=(1, 1, 9), mlp_ratio=1.2, scan_directions=1, **scan),
    )
    yield "scan, half precision", case("scan", channels=10, shape=(1, 4, 4), dtype=HALF, mlp_ratio=1.3, **scan)
    light = {"d_state": 1, "local_block": "light_cab"}
    yield "light", case("local", channels=6, shape=(2, 3, 5), **light)
    yield "light, eights", case("local", channels=16, shape=(1, 4, 3), **light)
    yield "light, half precision", case("local", channels=12, shape=(2, 4, 4), dtype=HALF, **light)
    classic = {"d_state": 1, "local_block": "cab"}
    yield "classic", case("local", channels=65, shape=(2, 3, 4), **classic)
    yield "classic, half precision", case("local", channels=20, shape=(1, 5, 4), dtype=HALF, **classic)
    yield "classic, own gradients of weights", case("local", channels=133, shape=(1, 5, 9), dtype=HALF, **classic)
    yield "weights", weights_case((3, 7, 11), 131, 43)
    yield "weights, five taps in places for eight", weights_case((1, 4, 5), 48, 16)
    small = Tile(channels=32, columns=64, pixels=16, warps=1, stages=1, programs=200)
    yield "weights, three taps in places for four", weights_case((2, 5, 9), 37, 11, small)
    yield "weights, one row", weights_case((1, 1, 5), 20, 17, small)
    yield "weights, one column", weights_case((2, 6, 1), 20, 17, small)
    yield "weights, sums of many parts", errors(sums_outcomes((1, 160, 103), 20, 17, CPU, small))
    for sizes in sum_cases.SUMS:
        yield f"sums {sizes}", errors(sum_cases.sums(*sizes, CPU))
    for sizes in sum_cases.ATTENTIONS:
        yield f"attention {sizes}", errors(sum_cases.attention(*sizes, CPU))


print(json.dumps(dict(all_cases())))
