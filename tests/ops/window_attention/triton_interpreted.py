"""Run by test_triton_interpreter.py in a process of its own, since Triton reads TRITON_INTERPRET when it is imported.

Prints one JSON object: case -> output or input name -> relative error against float64.
"""

import json
from collections.abc import Iterator
from unittest import mock

import torch
from torch.utils.flop_counter import FlopCounterMode

from mambair.ops.flops import window_attention_flops
from mambair.ops.window_attention import triton_launch
from mambair.ops.window_attention.reference import window_attention_reference
from mambair.ops.window_attention.triton_cuda import window_attention_triton
from mambair.ops.window_attention.triton_tiles import Tiles
from tests.ops.cases import gradients, leaves, relative_error
from tests.ops.window_attention.cases import random_attention


def case(generator: torch.Generator, *, window: int, shift: int, **sizes: int) -> dict[str, float]:
    arguments = random_attention(generator, window=window, **sizes)
    weights = None
    results = []
    for function, dtype in ((window_attention_reference, torch.float64), (window_attention_triton, torch.float32)):
        inputs = leaves(arguments, dtype)
        y = function(**inputs, window_size=window, shift=shift)
        weights = torch.randn(y.shape, generator=generator) if weights is None else weights
        results.append({"y": y} | gradients(y, weights, inputs))
    return {name: relative_error(results[1][name], results[0][name]) for name in results[0]}


def watched_calls() -> dict[str, float]:
    """What counts FLOPs sees the operator; a second derivative, which there is none of, is refused and not left out."""
    inputs = leaves(random_attention(torch.Generator().manual_seed(0)), torch.float32)
    with FlopCounterMode(display=False) as counter:
        window_attention_triton(**inputs, window_size=3, shift=1)
    flops = counter.get_total_flops() / window_attention_flops(54, 6, 3)
    y = window_attention_triton(**inputs, window_size=3, shift=1)
    (d_qkv,) = torch.autograd.grad(y.square().sum(), inputs["qkv"], create_graph=True)
    try:
        torch.autograd.grad(d_qkv.sum(), inputs["qkv"])
    except RuntimeError:
        return {"flops": abs(flops - 1), "second derivative": 0.0}
    return {"flops": abs(flops - 1), "second derivative": 1.0}


def all_cases() -> Iterator[tuple[str, dict[str, float]]]:
    generator = torch.Generator().manual_seed(0)
    yield "windows in place", case(generator, window=4, shift=0, height=8, width=4, channels=12)
    yield "shifted windows", case(generator, window=4, shift=2, height=8, width=12, channels=5)
    yield "blocks of pixels", case(generator, window=16, shift=8, height=16, width=32, heads=1, channels=3)
    with mock.patch.object(triton_launch, "tiles_for", return_value=Tiles(32, 16)):
        yield "smaller blocks", case(generator, window=5, shift=2, height=5, width=10, channels=6)
    with mock.patch("torch.compiler.is_compiling", return_value=True):
        yield "odd windows, as traced", case(generator, window=3, shift=1, height=3, width=6, batch=2, heads=3)
    yield "watched calls", watched_calls()


print(json.dumps(dict(all_cases())))
