"""Run by test_triton_interpreter.py in a process of its own, since Triton reads TRITON_INTERPRET when it is imported.

Prints one JSON object: case -> output or input name -> relative error against float64.
"""

import dataclasses
import json
from collections.abc import Iterator
from unittest import mock

import torch

from mambair.ops import attentive_scan
from mambair.ops.ss2d import triton_plan
from tests.ops.attentive_scan.cases import random_problem
from tests.ops.cases import gradients, leaves, relative_error

plan_by_size = triton_plan.make_plan


def small_plan(shape: triton_plan.ScanShape, processors: int) -> triton_plan.Plan:
    """Two chunks where there are two tiles, so that states pass between them."""
    return dataclasses.replace(plan_by_size(shape, processors), chunks=min(2, *shape.axis_tiles(8)))


def case(generator: torch.Generator, **sizes: int) -> dict[str, float]:
    arguments, tokens = random_problem(generator, **sizes)
    weights = torch.randn(arguments["x"].shape, generator=generator)
    results = []
    for backend, dtype in (("reference", torch.float64), ("triton", torch.float32)):
        inputs = leaves(arguments, dtype)
        y = attentive_scan(tokens=tokens, **inputs, backend=backend)
        results.append({"y": y} | gradients(y, weights, inputs))
    return {name: relative_error(results[1][name], results[0][name]) for name in results[0]}


def all_cases() -> Iterator[tuple[str, dict[str, float]]]:
    generator = torch.Generator().manual_seed(0)
    yield "two sequences", case(generator, channels=5, states=2, length=19)
    yield "many tokens, blocks of channels", case(generator, batch=1, channels=35, states=3, length=9, count=70)
    with mock.patch("torch.compiler.is_compiling", return_value=True):
        yield "as it is traced", case(generator, channels=4, states=2, length=10)
    yield "one place", case(generator, batch=1, channels=3, states=1, rank=1, length=1, count=2)


triton_plan.make_plan = small_plan
print(json.dumps(dict(all_cases())))
