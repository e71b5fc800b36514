"""Triton kernels on Triton's interpreter, which must be chosen before Triton is imported: in a process of its own.

The interpreter combines the elements of a reduction or scan one by one. Here whole slices are combined at once, which
the kernels' element-wise functions allow, and which takes a tenth of the time.
"""

import functools
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def run_interpreted(module: str, **environment: str) -> dict[str, dict[str, float]]:
    """Case -> tensor -> relative error, as `module` prints them in JSON on its last line."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, "-W", "ignore", "-m", "tests.ops.interpreting", module]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def _prefixes(operation: Any, inputs: tuple, axis: int) -> Iterator[tuple[np.ndarray, ...]]:
    """The combined slices along `axis`: the first, the first two, and so on."""
    combined: tuple[np.ndarray, ...] = ()
    for position in range(inputs[0].handle.data.shape[axis]):
        slices = tuple(np.take(tensor.handle.data, position, axis) for tensor in inputs)
        if combined:
            tensors = [
                operation.to_tensor(array, tensor.dtype)
                for arrays in (combined, slices)
                for array, tensor in zip(arrays, inputs, strict=True)
            ]
            found = operation.combine_fn.fn(*tensors)
            found = found if isinstance(found, tuple) else (found,)
            slices = tuple(
                np.broadcast_to(result.handle.data, part.shape).astype(part.dtype)
                if part.shape
                else result.handle.data.reshape(()).astype(part.dtype)
                for result, part in zip(found, slices, strict=True)
            )
        combined = slices
        yield combined


def _reduce(operation: Any, inputs: tuple) -> list:
    inputs, axis = operation.unravel(inputs, operation.axis)
    for last in _prefixes(operation, inputs, axis):  # noqa: B007
        pass
    if operation.keep_dims:
        last = tuple(np.expand_dims(array, axis) for array in last)
    return [operation.to_tensor(array, tensor.dtype) for array, tensor in zip(last, inputs, strict=True)]


def _scan(operation: Any, inputs: tuple) -> list:
    parts = zip(*_prefixes(operation, inputs, operation.axis), strict=True)
    return [
        operation.to_tensor(np.stack(slices, operation.axis), tensor.dtype)
        for slices, tensor in zip(parts, inputs, strict=True)
    ]


def _quicken_interpreter() -> None:
    from triton.language import pointer_type
    from triton.runtime import interpreter

    look_up = interpreter._get_np_dtype  # makes a table of all types at each call
    of_scalar = functools.cache(look_up)

    def numpy_type(dtype: Any) -> np.dtype:
        scalar = dtype.scalar
        return look_up(scalar) if isinstance(scalar, pointer_type) else of_scalar(scalar)

    replacements: tuple[tuple[object, str, Callable], ...] = (
        (interpreter.ReduceOps, "generic_reduce", _reduce),
        (interpreter.ScanOps, "generic_scan", _scan),
        (interpreter, "_get_np_dtype", numpy_type),
    )
    for owner, name, replacement in replacements:
        assert hasattr(owner, name), f"Triton's interpreter has no {name} any more"
        setattr(owner, name, replacement)


if __name__ == "__main__":
    _quicken_interpreter()
    importlib.import_module(sys.argv[1])
