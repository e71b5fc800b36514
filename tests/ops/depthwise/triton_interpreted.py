"""Run by test_triton_interpreter.py in a process of its own, since Triton reads TRITON_INTERPRET when it is imported.

Prints one JSON object: case -> output or input name -> relative error against float64.
"""

import json
from collections.abc import Iterator
from unittest import mock

import torch

from mambair.ops.depthwise import triton_launch, wide_launch
from tests.ops.cases import leaves, relative_error
from tests.ops.depthwise.cases import as_slice, expected, found, random_convolution, spread


def errors(
    *, dilation: int = 1, silu: bool = False, layout=lambda x: x, dtype: torch.dtype = torch.float32, **sizes
) -> dict[str, float]:
    arguments = random_convolution(**sizes)
    inputs = leaves(arguments, torch.float32)
    inputs["x"] = layout(inputs["x"])
    truth = expected(arguments, dilation, silu)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        results = found(inputs, dilation, silu)
    assert results["y"].dtype == dtype
    assert results["y"].is_contiguous()
    return {name: relative_error(results[name], truth[name]) for name in truth}


def sum_errors(*, parts: int, channels: int) -> dict[str, float]:
    """Of the weight's and the bias's gradients, from as many parts as an image of a pixel each leaves."""
    image = triton_launch.Image.of(torch.empty(parts, 1, 1, channels))
    key = triton_launch.Convolution(image, torch.float32, torch.float32, 1, False, channels, channels)
    source = torch.randn(parts, 10, channels, generator=torch.Generator().manual_seed(parts), dtype=torch.float64)
    weight, bias = torch.full((channels, 9), torch.nan), torch.full((channels,), torch.nan)
    single, plan = source.float(), triton_launch.ConvolutionPlan(key, torch.device("cpu"))
    plan._sum(single.data_ptr(), weight.data_ptr(), bias.data_ptr())
    exact = source.sum(0)
    return {"weight": relative_error(weight, exact[:9].T), "bias": relative_error(bias, exact[9])}


def all_cases() -> Iterator[tuple[str, dict[str, float]]]:
    yield "silu, slice of a wider tensor", errors(silu=True, layout=as_slice)
    yield "two strips, two blocks of columns", errors(batch=1, height=9, width=35, silu=True)
    yield "two blocks of channels, no bias", errors(batch=1, height=3, width=4, channels=20, bias=False)
    yield "dilation, three strips", errors(batch=1, height=17, dilation=2)
    yield "dilation, a strip without rows", errors(batch=1, height=25, width=3, channels=4, dilation=2)
    yield "dilation, a column without its pair", errors(batch=1, height=3, width=11, channels=4, dilation=2)
    yield "dilation with silu, gaps between channels", errors(height=4, dilation=2, silu=True, layout=spread)
    yield "dilation beyond the image", errors(batch=1, height=2, width=3, dilation=4, silu=True, bias=False)
    yield "one pixel", errors(height=1, width=1, channels=5, silu=True)
    yield "one channel", errors(channels=1, silu=True)
    yield "more parts than are summed at a time", sum_errors(parts=515, channels=17)
    yield "few parts", sum_errors(parts=3, channels=32)
    yield "5x5, slice of a wider tensor", errors(size=5, layout=as_slice)
    yield "5x5, shares of tiles, no bias", errors(size=5, batch=1, height=9, width=35, bias=False)
    yield "7x7 with dilation and silu", errors(size=7, batch=1, channels=35, height=4, dilation=2, silu=True)
    with mock.patch("torch.compiler.is_compiling", return_value=True):
        yield "5x5 as it is traced", errors(size=5)
    yield "half precision", errors(silu=True, layout=as_slice, dtype=torch.float16)


# Several strips of few rows, the last one shorter, which the sizes that the interpreter gets through would not have.
triton_launch._ROWS, triton_launch._LEAST_ROWS = 3, 4
wide_launch._VALUES = wide_launch._SUMMED = 128
print(json.dumps(dict(all_cases())))
