"""The CPU kernels against the reference in float64."""

import importlib
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mambair.ops import selective_scan, ss2d_scan
from mambair.ops.cpu import workers
from tests.ops.cases import (
    SCAN_CASES,
    SCAN_INPUTS,
    SS2D_CASES,
    SS2D_INPUTS,
    gradients,
    leaves,
    load_golden,
    random_scan,
    random_ss2d,
    relative_error,
    vssm,
)

# By name: the attribute mambair.ops.selective_scan is the function.
scan_module = importlib.import_module("mambair.ops.selective_scan.numba_cpu")
ss2d_module = importlib.import_module("mambair.ops.ss2d.numba_cpu")

TOLERANCE = 5e-6  # of the largest value; measured errors stay below 1e-6


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Uninitialised tensors are full of NaN, so that reading one shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SCAN_SHAPES = {
    "small": {},
    "one step": {"length": 1},
    "one chunk exactly": {"length": 64, "channels": 32, "groups": 1},
    "chunk and one": {"length": 65, "channels": 17, "groups": 1},
    "several chunks and blocks": {"batch": 1, "length": 150, "channels": 144, "states": 10, "groups": 4},
    "one state": {"states": 1, "batch": 3},
    "64 states": {"states": 64, "channels": 20, "groups": 1, "length": 20},
}


@pytest.mark.parametrize("delta_softplus", [True, False])
@pytest.mark.parametrize("shape", SCAN_SHAPES.values(), ids=SCAN_SHAPES)
def test_selective_scan_equals_reference(shape: dict, delta_softplus: bool) -> None:
    arguments = random_scan(generator(0), **shape)
    if not delta_softplus:  # steps are positive, as softplus would make them
        arguments["delta"], arguments["delta_bias"] = arguments["delta"].abs(), arguments["delta_bias"].abs()
    exact, found = leaves(arguments, torch.float64), leaves(arguments, torch.float32)
    options = {"delta_softplus": delta_softplus, "return_last_state": True}
    y, state = selective_scan(**exact, **options, backend="reference")
    y_found, state_found = selective_scan(**found, **options, backend="numba")
    assert relative_error(y_found, y) < TOLERANCE
    assert relative_error(state_found, state) < TOLERANCE

    weights = torch.randn(y.shape, generator=generator(1), dtype=torch.float64)
    state_weights = torch.randn(state.shape, generator=generator(2), dtype=torch.float64)

    def loss_gradients(y: Tensor, state: Tensor, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        loss = (y * weights.to(y)).sum() + (state * state_weights.to(state)).sum()
        return torch.autograd.grad(loss, list(inputs.values()))

    expected = loss_gradients(y, state, exact)
    for name, gradient, right in zip(exact, loss_gradients(y_found, state_found, found), expected, strict=True):
        assert relative_error(gradient, right) < TOLERANCE, name


SS2D_SHAPES = {
    "small": {},
    "one pixel": {"height": 1, "width": 1},
    "one row": {"height": 1, "width": 70},
    "one column": {"height": 13, "width": 1},
    "as the light network": {"batch": 1, "height": 9, "width": 11, "channels": 72, "states": 10, "rank": 4},
    "whole blocks": {"height": 8, "width": 8, "channels": 32, "rank": 1},
    "one state": {"states": 1, "channels": 17},
    "64 states": {"batch": 1, "states": 64, "height": 3, "channels": 20},
    "one direction": {"directions": 1},
    "two directions": {"directions": 2, "height": 9, "width": 10},
}


@pytest.mark.parametrize("shape", SS2D_SHAPES.values(), ids=SS2D_SHAPES)
def test_ss2d_equals_reference(shape: dict) -> None:
    arguments = random_ss2d(generator(0), **shape)
    exact, found = leaves(arguments, torch.float64), leaves(arguments, torch.float32)
    directions = shape.get("directions", 4)
    y = ss2d_scan(**exact, directions=directions, backend="reference")
    y_found = ss2d_scan(**found, directions=directions, backend="numba")
    assert relative_error(y_found, y) < TOLERANCE
    weights = torch.randn(y.shape, generator=generator(1), dtype=torch.float64)
    expected = gradients(y, weights, exact)
    for name, gradient in gradients(y_found, weights, found).items():
        assert relative_error(gradient, expected[name]) < TOLERANCE, name


@pytest.mark.parametrize("case", SCAN_CASES)
def test_selective_scan_equals_golden(case: str) -> None:
    meta, arrays = load_golden(case, torch.float64)
    inputs = leaves({name: arrays[name] for name in SCAN_INPUTS}, torch.float32)
    y = selective_scan(**inputs, delta_softplus=meta["delta_softplus"], backend="numba")
    assert relative_error(y, arrays["out"]) < TOLERANCE
    for name, gradient in gradients(y, arrays["w"], inputs).items():
        assert relative_error(gradient, arrays[f"grad_{name}"]) < TOLERANCE, name


@pytest.mark.parametrize("case", SS2D_CASES)
def test_ss2d_equals_golden(case: str) -> None:
    _, arrays = load_golden(case, torch.float32)
    inputs = leaves({key: arrays[key] for key in arrays if key == "input" or key.startswith("param/")}, torch.float32)
    output = vssm({**arrays, **inputs}, lambda *arguments: ss2d_scan(*arguments, backend="numba"))
    assert relative_error(output, arrays["output"]) < 1e-5
    for name, gradient in gradients(output, arrays["w"], inputs).items():
        expected = arrays["grad_input" if name == "input" else name.replace("param/", "grad/")]
        assert relative_error(gradient, expected) < 1e-5, name


def test_slow_decay_over_a_long_sequence_stays_accurate() -> None:
    arguments = random_scan(generator(3), batch=1, channels=4, length=3000, states=2, groups=1)
    arguments["delta"] = 1e-3 * arguments["delta"].abs()
    arguments["A"] = -torch.ones_like(arguments["A"])
    arguments["delta_bias"] = torch.zeros_like(arguments["delta_bias"])
    y = selective_scan(**arguments, backend="reference")
    y_found = selective_scan(**{name: value.float() for name, value in arguments.items()}, backend="numba")
    assert relative_error(y_found, y) < 1e-5


def test_optional_arguments_may_be_absent() -> None:
    arguments = random_scan(generator(0))
    for name in ("D", "z", "delta_bias"):
        del arguments[name]
    exact, found = leaves(arguments, torch.float64), leaves(arguments, torch.float32)
    y = selective_scan(**exact, delta_softplus=True, backend="reference")
    y_found = selective_scan(**found, delta_softplus=True, backend="numba")
    expected = gradients(y, torch.ones_like(y), exact)
    for name, gradient in gradients(y_found, torch.ones_like(y), found).items():
        assert relative_error(gradient, expected[name]) < TOLERANCE, name


def test_only_the_last_state_is_used() -> None:
    found = leaves(random_scan(generator(0), batch=1, length=5), torch.float32)
    exact = {name: value.detach().double().requires_grad_() for name, value in found.items()}
    used = [name for name in found if name not in ("z", "C", "D")]
    expected = selective_scan(**exact, return_last_state=True, backend="reference")[1]
    state = selective_scan(**found, return_last_state=True, backend="numba")[1]
    right = torch.autograd.grad(expected.sum(), [exact[name] for name in used])
    for name, gradient, other in zip(
        used, torch.autograd.grad(state.sum(), [found[name] for name in used]), right, strict=True
    ):
        assert relative_error(gradient, other) < TOLERANCE, name


def test_large_delta_forgets_and_stays_finite() -> None:
    arguments = random_ss2d(generator(0))
    arguments["dt_projs_bias"] = arguments["dt_projs_bias"] + 20.0
    exact, found = leaves(arguments, torch.float64), leaves(arguments, torch.float32)
    y = ss2d_scan(**exact, backend="reference")
    y_found = ss2d_scan(**found, backend="numba")
    assert relative_error(y_found, y) < TOLERANCE
    expected = gradients(y, torch.ones_like(y), exact)
    for name, gradient in gradients(y_found, torch.ones_like(y), found).items():
        assert relative_error(gradient, expected[name]) < TOLERANCE, name


def test_nan_in_the_input_reaches_the_output() -> None:
    arguments = {name: value.float() for name, value in random_ss2d(generator(0)).items()}
    arguments["x"][0, 2, 3, 1] = float("nan")
    y = ss2d_scan(**arguments, backend="numba")
    assert y[0].isnan().all()
    assert y[1].isfinite().all()


def test_strides_do_not_matter() -> None:
    arguments = {name: value.float() for name, value in random_ss2d(generator(0)).items()}
    expected = ss2d_scan(**arguments, backend="numba")
    arguments["x"] = arguments["x"].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    arguments["A_logs"] = arguments["A_logs"].t().contiguous().t()
    assert torch.equal(ss2d_scan(**arguments, backend="numba"), expected)

    scan = {name: value.float() for name, value in random_scan(generator(0)).items()}
    del scan["z"]
    expected = selective_scan(**scan, delta_softplus=True, backend="numba")
    for name in ("u", "delta", "B", "C"):
        scan[name] = scan[name].transpose(-1, -2).contiguous().transpose(-1, -2)
    assert torch.equal(selective_scan(**scan, delta_softplus=True, backend="numba"), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    arguments = random_ss2d(generator(0))
    low = leaves(arguments, dtype)
    full = leaves({name: value.detach().float() for name, value in low.items()}, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ss2d_scan(**low, backend="numba")
    expected = ss2d_scan(**full, backend="numba")
    assert y.dtype == dtype
    assert torch.equal(y, expected.to(dtype))
    weights = torch.ones_like(expected)
    right = gradients(expected, weights, full)
    for name, gradient in gradients(y, weights, low).items():
        assert gradient.dtype == dtype
        assert torch.equal(gradient, right[name].to(dtype)), name


def test_only_needed_gradients_are_returned() -> None:
    arguments = {name: value.float() for name, value in random_ss2d(generator(0)).items()}
    arguments["x"].requires_grad_()
    ss2d_scan(**arguments, backend="numba").sum().backward()
    assert arguments["x"].grad is not None
    assert all(value.grad is None for name, value in arguments.items() if name != "x")


def test_gradients_may_be_asked_for_with_a_graph() -> None:
    inputs = leaves(random_ss2d(generator(0)), torch.float32)
    y = ss2d_scan(**inputs, backend="numba")
    (dx,) = torch.autograd.grad(y.square().sum(), inputs["x"], create_graph=True)
    (expected,) = torch.autograd.grad(ss2d_scan(**inputs, backend="numba").square().sum(), inputs["x"])
    assert torch.equal(dx, expected)
    with pytest.raises(RuntimeError, match="ss2d_scan_numba_backward"):
        torch.autograd.grad(dx.sum(), inputs["x"])  # second derivatives are the reference's


def saved_states(calls: list[tuple], monkeypatch: pytest.MonkeyPatch) -> None:
    """Record the shape of every tensor of saved states that ss2d_scan makes."""
    new_saved = ss2d_module._new_saved

    def recording(*arguments) -> Tensor:
        saved = new_saved(*arguments)
        calls.append(tuple(saved.shape))
        return saved

    monkeypatch.setattr(ss2d_module, "_new_saved", recording)


def test_states_are_kept_only_for_a_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple] = []
    saved_states(calls, monkeypatch)
    inputs = leaves(random_ss2d(generator(0), height=10, width=10), torch.float32)
    with torch.no_grad():
        ss2d_scan(**inputs, backend="numba")
    ss2d_scan(**{name: value.detach() for name, value in inputs.items()}, backend="numba")
    ss2d_scan(**inputs, backend="numba")
    assert [shape[0] for shape in calls] == [0, 0, 2]
    assert calls[-1] == (2, 4, 2, 1, 4, 16)  # (B, K, chunks of 64 pixels, blocks, N, lanes), not L x N per channel


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing(use_reentrant: bool) -> None:
    inputs = leaves(random_ss2d(generator(0)), torch.float32)

    def run(*values: Tensor) -> Tensor:
        return ss2d_scan(*values, backend="numba").square()

    run(*inputs.values()).sum().backward()
    expected = {name: value.grad for name, value in inputs.items()}
    again = leaves(inputs, torch.float32)
    checkpoint(run, *again.values(), use_reentrant=use_reentrant).sum().backward()
    for name, value in again.items():
        assert torch.equal(value.grad, expected[name]), name


def test_torch_compile_meets_no_graph_break() -> None:
    inputs = leaves(random_ss2d(generator(0)), torch.float32)
    scan = leaves(random_scan(generator(0)), torch.float32)

    def run(values: tuple[Tensor, ...], scan: dict[str, Tensor]) -> Tensor:
        return ss2d_scan(*values).square().sum() + selective_scan(**scan, delta_softplus=True).sum()

    everything = [*inputs.values(), *scan.values()]
    expected = torch.autograd.grad(run(tuple(inputs.values()), scan), everything)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for gradient, right in zip(
        torch.autograd.grad(compiled(tuple(inputs.values()), scan), everything), expected, strict=True
    ):
        assert relative_error(gradient, right) < TOLERANCE


def test_operators_keep_the_rules_of_torch_library() -> None:
    scan = {name: value.float().requires_grad_() for name, value in random_scan(generator(0)).items()}
    tensors = [scan[name] for name in SCAN_INPUTS]
    torch.library.opcheck(scan_module._scan, (*tensors, True, True))
    ss2d = {name: value.float().requires_grad_() for name, value in random_ss2d(generator(0)).items()}
    x, _, dt_weight, dt_bias, A_logs, Ds = (ss2d[name] for name in SS2D_INPUTS)
    projections = torch.randn(2, 5, 7, 4 * 10, generator=generator(1), requires_grad=True)
    A = -A_logs.detach().exp().view(4, 6, 4).requires_grad_()
    torch.library.opcheck(ss2d_module._scan, (x, projections, dt_weight, dt_bias, A, Ds.view(4, 6), True))


@pytest.mark.parametrize("threads", [1, 3, 16])
def test_any_number_of_threads_gives_the_same_result(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = random_ss2d(generator(0), height=9, width=9, channels=40)
    scan = random_scan(generator(0), channels=80, length=70)
    exact, found = leaves(arguments, torch.float64), leaves(arguments, torch.float32)
    exact_scan, found_scan = leaves(scan, torch.float64), leaves(scan, torch.float32)
    monkeypatch.setattr(workers.torch, "get_num_threads", lambda: threads)
    for right, result, inputs, low in (
        (ss2d_scan(**exact, backend="reference"), ss2d_scan(**found, backend="numba"), exact, found),
        (
            selective_scan(**exact_scan, delta_softplus=True, backend="reference"),
            selective_scan(**found_scan, delta_softplus=True, backend="numba"),
            exact_scan,
            found_scan,
        ),
    ):
        assert relative_error(result, right) < TOLERANCE
        expected = gradients(right, torch.ones_like(right), inputs)
        for name, gradient in gradients(result, torch.ones_like(right), low).items():
            assert relative_error(gradient, expected[name]) < TOLERANCE, name


def test_several_python_threads_may_scan_at_once() -> None:
    arguments = {name: value.float() for name, value in random_ss2d(generator(0), channels=40).items()}
    expected = ss2d_scan(**arguments, backend="numba")
    results: list[Tensor] = []

    def run() -> None:
        results.extend(ss2d_scan(**arguments, backend="numba") for _ in range(10))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 40
    assert all(torch.equal(result, expected) for result in results)
