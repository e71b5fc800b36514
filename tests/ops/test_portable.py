"""The scan in standard operators: two levels against float64, all gradients, memory, strong decays."""

from unittest import mock

import pytest
import torch
from torch import Tensor

from mambair.ops import selective_scan, ss2d_scan, two_level
from mambair.ops.two_level import cut, run_steps, softplus
from tests.ops.cases import (
    SCAN_CASES,
    SCAN_INPUTS,
    SS2D_CASES,
    gradients,
    leaves,
    load_golden,
    random_scan,
    random_ss2d,
    relative_error,
    vssm,
)

TOLERANCES = [(torch.float64, 1e-12), (torch.float32, 2e-5)]


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("case", SCAN_CASES)
def test_selective_scan_equals_golden(case: str, dtype: torch.dtype, tolerance: float) -> None:
    meta, arrays = load_golden(case, torch.float64)
    inputs = leaves({name: arrays[name] for name in SCAN_INPUTS}, dtype)
    y, state = selective_scan(
        **inputs, delta_softplus=meta["delta_softplus"], return_last_state=True, backend="portable"
    )
    assert y.dtype == dtype and relative_error(y, arrays["out"]) < tolerance
    assert relative_error(state, arrays["last_state"]) < tolerance
    for name, gradient in gradients(y, arrays["w"], inputs).items():
        assert relative_error(gradient, arrays[f"grad_{name}"]) < 10 * tolerance, name


@pytest.mark.parametrize("case", SS2D_CASES)
def test_ss2d_equals_golden(case: str) -> None:
    _, arrays = load_golden(case, torch.float64)
    inputs = leaves({key: arrays[key] for key in arrays if key == "input" or key.startswith("param/")}, torch.float64)

    def scan(*arguments: Tensor) -> Tensor:
        return ss2d_scan(*arguments, backend="portable")

    output = vssm({**arrays, **inputs}, scan)
    assert relative_error(output, arrays["output"]) < 1e-5
    for name, gradient in gradients(output, arrays["w"], inputs).items():
        expected = arrays["grad_input" if name == "input" else name.replace("param/", "grad/")]
        assert relative_error(gradient, expected) < 1e-5, name


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"directions": 1, "batch": 1, "height": 1, "width": 1},
        {"directions": 2, "height": 1, "width": 13},
        {"directions": 4, "batch": 3, "height": 11, "width": 2},
    ],
    ids=str,
)
def test_ss2d_equals_the_reference_with_every_gradient(sizes: dict, dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    arguments = random_ss2d(generator, **sizes)
    weights = torch.randn(arguments["x"].shape, generator=generator, dtype=torch.float64)
    directions = sizes.get("directions", 4)
    results = []
    for backend, kind in (("reference", torch.float64), ("portable", dtype)):
        inputs = leaves(arguments, kind)
        y = ss2d_scan(**inputs, directions=directions, backend=backend)
        results.append({"y": y} | gradients(y, weights, inputs))
    for name, expected in results[0].items():
        assert relative_error(results[1][name], expected) < tolerance, name


@pytest.mark.parametrize("chunks", [1, 2, 7, 37])
def test_the_number_of_chunks_changes_nothing(chunks: int) -> None:
    inputs = random_scan(torch.Generator().manual_seed(0), length=37)
    expected = selective_scan(**inputs, delta_softplus=True, return_last_state=True, backend="reference")
    cutting = f"{selective_scan.__module__.rpartition('.')[0]}.portable.cut"
    with mock.patch(cutting, lambda length, states: (chunks, -(-length // chunks))):
        found = selective_scan(**inputs, delta_softplus=True, return_last_state=True, backend="portable")
    assert all(relative_error(one, other) < 1e-12 for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("delta", [1e-30, 1e3, 1e30])
def test_no_decay_is_too_weak_or_too_strong(delta: float) -> None:
    inputs = {name: value.float() for name, value in random_scan(torch.Generator().manual_seed(0), length=50).items()}
    inputs |= {"delta": delta * inputs["delta"].abs(), "delta_bias": None}
    exact = {name: None if value is None else value.double() for name, value in inputs.items()}
    expected = selective_scan(**exact, backend="reference")
    assert relative_error(selective_scan(**inputs, backend="portable"), expected) < 1e-5


def test_half_precision_is_computed_in_float32() -> None:
    low = {name: value.half() for name, value in random_ss2d(torch.Generator().manual_seed(1)).items()}
    expected = ss2d_scan(**{name: value.float() for name, value in low.items()}, backend="portable")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ss2d_scan(**low, backend="portable")
    assert torch.equal(found, expected.half())


def test_exported_chunks_depend_on_the_states_alone() -> None:
    """So that a step's states fit a cache; sequences are filled up to whole steps of ONNX's loops."""
    with mock.patch("torch.compiler.is_exporting", lambda: True):
        for states, chunks in ((1, 64), (2880, 64), (6144, 32), (23040, 16), (10**9, 16)):
            for length in (1, 255, 256, 257, 65536):
                found, steps = two_level.cut(length, states)
                assert found == chunks and steps % two_level.UNROLLED == 0
                assert 0 <= chunks * steps - length < chunks * two_level.UNROLLED


def test_steps_grow_with_the_root_of_the_length() -> None:
    lengths = (1, 2, 99, 4096, 65536)
    assert [cut(length, 1) for length in lengths] == [(1, 1), (1, 2), (9, 11), (64, 64), (256, 256)]
    steps = []

    def counted(step: two_level.Step, state: two_level.Tensors, inputs: two_level.Tensors, *prepare: two_level.Prepare):
        steps.append(len(inputs[0]))
        return run_steps(step, state, inputs, *prepare)

    with mock.patch.object(two_level, "run_steps", counted):
        selective_scan(**random_scan(torch.Generator().manual_seed(0), length=400), backend="portable")
    assert steps == [20, 20, 20]


def test_states_are_kept_of_few_steps_only() -> None:
    """Of the 96 states of 32 chunks that three times 32 steps make, every sixth is kept for the gradients."""
    state = (1, 1, 32, 4, 3)  # (B, G, M, N, E)
    arguments = random_scan(torch.Generator().manual_seed(0), batch=1, channels=3, length=1024, states=4, groups=1)
    saved = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = selective_scan(**leaves(arguments, torch.float64), backend="portable")
    assert y.requires_grad and 0 < saved.count(state) < 96 / 4


def test_softplus_for_export_is_exact() -> None:
    x = torch.cat([torch.linspace(-80, 100, 4001), torch.tensor([0.0, -1e-30, -17.0, 20.5])])
    exact = torch.nn.functional.softplus(x.double())
    with mock.patch("torch.compiler.is_exporting", return_value=True):
        found = softplus(x)
    assert ((found.double() - exact).abs() <= 3e-7 * exact).all()
