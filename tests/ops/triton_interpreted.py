"""Run by test_triton_interpreter.py in a process of its own, since Triton reads TRITON_INTERPRET when it is imported.

Prints one JSON object: case -> output or input name -> relative error against float64.
"""

import dataclasses
import json
from collections.abc import Iterator

import torch
from torch import Tensor

from mambair.ops import selective_scan, ss2d_scan
from mambair.ops.ss2d import triton_launch, triton_plan, triton_prepare
from tests.ops.cases import gradients, leaves, random_scan, random_ss2d, relative_error

HALF = torch.float16
plan_by_size = triton_plan.make_plan


def small_plan(shape: triton_plan.ScanShape, processors: int) -> triton_plan.Plan:
    """Two chunks where there are two tiles, so that states pass between them; of a long line all, one by one."""
    tiles = min(shape.axis_tiles(8))
    return dataclasses.replace(plan_by_size(shape, processors), chunks=tiles if tiles > 16 else min(2, tiles))


def scattered(tensor: Tensor) -> Tensor:
    """The same values with gaps between them in memory, NaN in the gaps."""
    spaced = torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1]), torch.nan, dtype=tensor.dtype)
    spaced[..., ::2] = tensor.detach()
    return spaced[..., ::2].requires_grad_()


def errors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    return {name: relative_error(found[name], expected[name]) for name in expected}


def ss2d_case(generator: torch.Generator, *, bias: float = 0.0, gaps: bool = False, **sizes: int) -> dict[str, float]:
    arguments = random_ss2d(generator, **sizes)
    arguments["dt_projs_bias"] += bias
    weights = torch.randn(arguments["x"].shape, generator=generator)
    directions = len(arguments["x_proj_weight"])
    results = []
    for backend, dtype in (("reference", torch.float64), ("triton", torch.float32)):
        inputs = leaves(arguments, dtype)
        if gaps:
            inputs["x"] = scattered(inputs["x"])
        y = ss2d_scan(**inputs, directions=directions, backend=backend)
        results.append({"y": y} | gradients(y, weights, inputs))
    return errors(results[1], results[0])


def scan_case(generator: torch.Generator, *, softplus: bool, **sizes: int) -> dict[str, float]:
    arguments = random_scan(generator, **sizes)
    # Without softplus delta must be positive by itself: states would grow without bound.
    arguments["delta"] = arguments["delta"].abs() + 1.5
    arguments["delta_bias"].clamp_(min=-1.4)
    results = []
    for backend, dtype in (("reference", torch.float64), ("triton", torch.float32)):
        inputs = leaves(arguments, dtype)
        y, state = selective_scan(**inputs, delta_softplus=softplus, return_last_state=True, backend=backend)
        found = torch.autograd.grad((y * y).sum() + (state * state).sum(), list(inputs.values()))
        results.append({"y": y, "state": state} | dict(zip(inputs, found, strict=True)))
    return errors(results[1], results[0])


def product_case(generator: torch.Generator, *, pixels: int, channels: int, rank: int) -> dict[str, float]:
    """Delta of all directions as a product, which the interpreter does for fp16 only."""
    shape = triton_plan.ScanShape(1, 1, pixels, channels, groups=2, senses=2, states=2, rank=rank, image=True)
    launch = triton_plan.Launch(shape, plan_by_size(shape, 132), 0, 2)
    projected = torch.randn(pixels, 4, shape.projections, generator=generator).to(HALF)
    weight = torch.randn(4, rank, channels, generator=generator) / rank**0.5
    bias = torch.randn(4, channels, generator=generator)
    found = torch.full((pixels, 4, channels), torch.nan, dtype=HALF)
    types = triton_launch.ScanTypes(HALF, None, HALF, torch.float32, torch.float32)
    kernel = triton_launch.delta_launch(launch, types, projected.device)
    assert kernel.variant[0] is triton_prepare.delta_product_kernel
    kernel(*(tensor.data_ptr() for tensor in (projected, weight, bias, projected, found)))
    expected = torch.einsum("lkr,kre->lke", projected[..., :rank].double(), weight.double()) + bias
    return errors({"delta": found}, {"delta": torch.nn.functional.softplus(expected)})


def passing_case(generator: torch.Generator, *, chunks: int, backward: bool, initial: bool) -> dict[str, float]:
    """What enters each of many chunks, in both senses, from what each contributes."""
    shape = triton_plan.ScanShape(2, 1, 8 * chunks, 40, groups=1, senses=2, states=3, rank=1, image=True)
    plan = dataclasses.replace(plan_by_size(shape, 132), chunks=chunks)
    rows = 2 * shape.states + 1 if backward else shape.states
    launch = triton_plan.Launch(shape, plan, 0, 1)
    states = torch.randn(2, chunks, 2, 2, rows, 32, generator=generator)
    sums = torch.rand(2, chunks, 2, 2, 32, generator=generator)
    A2 = -torch.rand(2, 2, 3, 32, generator=generator)
    entering = torch.randn(2, 2, 3, 40, generator=generator)
    decays = torch.exp2(sums[:, :, :, :, None].double() * A2.double())
    own, expected = states[..., :3, :].double(), states.double().clone()
    carry = torch.zeros(2, 2, 2, 3, 32, dtype=torch.float64)
    if initial:
        lanes = torch.nn.functional.pad(entering.double(), (0, 24)).view(2, 2, 3, 2, 32)
        carry = lanes.transpose(2, 3)
    for sense in range(2):
        state = carry[:, sense]
        for chunk in range(chunks) if (sense == 0) != backward else reversed(range(chunks)):
            expected[:, chunk, sense, :, :3] = state
            state = decays[:, chunk, sense] * state + own[:, chunk, sense]
    kernel = triton_launch.pass_states_kernel(launch, rows, states.device, backward, initial)
    kernel(*(tensor.data_ptr() for tensor in (states, sums, A2, entering)))
    return errors({"states": states}, {"states": expected})


def all_cases() -> Iterator[tuple[str, dict[str, float]]]:
    generator = torch.Generator().manual_seed(0)
    one = {"batch": 1, "channels": 5, "rank": 2, "states": 2}
    yield "four directions", ss2d_case(generator, **one | {"batch": 2}, height=9, width=3)
    yield "two directions, gaps in memory", ss2d_case(generator, **one, height=1, width=17, directions=2, gaps=True)
    yield "two blocks of channels", ss2d_case(generator, **one | {"channels": 40}, height=1, width=9, directions=1)
    yield "one pixel", ss2d_case(generator, **one, height=1, width=1, directions=1)
    yield "large delta", ss2d_case(generator, **one, height=1, width=9, directions=2, bias=12.0)
    yield "full lines", ss2d_case(generator, **one, height=2, width=8, directions=2)
    yield "more chunks than are passed at once", ss2d_case(generator, **one, height=1, width=130, directions=1)
    yield "sequence", scan_case(generator, softplus=True, batch=1, channels=6, length=11, states=2, groups=2)
    yield (
        "sequence, plain delta",
        scan_case(generator, softplus=False, batch=1, channels=3, length=9, states=2, groups=1),
    )
    yield "one run of chunks", passing_case(generator, chunks=19, backward=False, initial=True)
    yield "runs of chunks, backward", passing_case(generator, chunks=77, backward=True, initial=True)
    yield "runs of chunks, some empty", passing_case(generator, chunks=33, backward=False, initial=False)
    triton_launch.product_precision = lambda *_: "tf32"
    yield "delta as a product", product_case(generator, pixels=133, channels=40, rank=9)


triton_plan.make_plan = small_plan
print(json.dumps(dict(all_cases())))
