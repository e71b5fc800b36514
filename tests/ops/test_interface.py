import logging
from collections.abc import Callable

import pytest
import torch

from mambair.errors import UserError
from mambair.ops import available_backends, backend_names, backends, chosen_backend, selective_scan, ss2d_scan
from tests.ops.cases import random_scan, random_ss2d


def scan_arguments() -> dict:
    arguments = random_scan(torch.Generator().manual_seed(0), batch=1, channels=4, length=3, states=2, groups=2)
    return {name: value.float() for name, value in arguments.items()}


def ss2d_arguments() -> dict:
    arguments = random_ss2d(torch.Generator().manual_seed(0), batch=1, height=2, width=2, channels=3, states=2)
    return {name: value.float() for name, value in arguments.items()}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("u", lambda u: u[0], "u must be"),
        ("u", lambda u: u.long(), "u must be floating point"),
        ("u", lambda u: u[:, :, :0], "empty"),
        ("delta", lambda delta: delta[:, :, :2], "delta must be"),
        ("A", lambda A: A[:, :, None], "A must be"),
        ("A", lambda A: A.to(torch.complex64), "A must be real"),
        ("B", lambda B: B[:, :, :, :2], "B must be"),
        ("B", lambda B: B[0, 0], "B must be"),
        ("B", lambda B: B.repeat(1, 2, 1, 1)[:, :3], "must divide"),
        ("C", lambda C: C[:, :1], "C must be"),
        ("D", lambda D: D[:1], "D must be"),
        ("z", lambda z: z[:, :1], "z must be"),
        ("delta_bias", lambda bias: bias.to("meta"), "delta_bias is on meta"),
    ],
)
def test_selective_scan_names_the_wrong_argument(name: str, change: Callable, message: str) -> None:
    arguments = scan_arguments()
    arguments[name] = change(arguments[name])
    with pytest.raises(UserError, match=message):
        selective_scan(**arguments)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("x", lambda x: x[0], "x must be"),
        ("x", lambda x: x.int(), "x must be real floating"),
        ("x_proj_weight", lambda weight: weight[:, :-1], "x_proj_weight must be"),
        ("dt_projs_weight", lambda weight: weight[0], "dt_projs_weight"),
        ("dt_projs_bias", lambda bias: bias[:1], "dt_projs_bias must be"),
        ("A_logs", lambda A_logs: A_logs[:3], "A_logs must be"),
        ("Ds", lambda Ds: Ds.to("meta"), "Ds is on meta"),
        ("directions", lambda _: 3, "directions must be 1, 2 or 4"),
        ("directions", lambda _: 2, "x_proj_weight must be"),
    ],
)
def test_ss2d_scan_names_the_wrong_argument(name: str, change: Callable, message: str) -> None:
    arguments = {"directions": 4, **ss2d_arguments()}
    arguments[name] = change(arguments[name])
    with pytest.raises(UserError, match=message):
        ss2d_scan(**arguments)


def test_groups_may_be_left_out() -> None:
    arguments = scan_arguments()
    arguments["B"], arguments["C"] = arguments["B"][:, 0], arguments["C"][:, 0]
    grouped = {**arguments, "B": arguments["B"].unsqueeze(1), "C": arguments["C"].unsqueeze(1)}
    assert torch.equal(selective_scan(**arguments), selective_scan(**grouped))


def test_unknown_backend_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean 'triton'"):
        selective_scan(**scan_arguments(), backend="tritn")


def test_named_backend_that_cannot_run_raises() -> None:
    with pytest.raises(UserError, match="backend 'mamba_ssm' cannot run ss2d_scan here: "):
        ss2d_scan(**ss2d_arguments(), backend="mamba_ssm")
    with pytest.raises(UserError, match="float64; use backend='reference'"):
        selective_scan(**{name: value.double() for name, value in scan_arguments().items()}, backend="numba")


def test_environment_variable_decides_for_auto_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backends.ENVIRONMENT_VARIABLE, "mamba_ssm")
    with pytest.raises(UserError, match="MAMBAIR_SCAN_BACKEND=mamba_ssm cannot run selective_scan"):
        selective_scan(**scan_arguments())
    selective_scan(**scan_arguments(), backend="reference")
    monkeypatch.setenv(backends.ENVIRONMENT_VARIABLE, "nonsense")
    with pytest.raises(UserError, match="MAMBAIR_SCAN_BACKEND=nonsense"):
        ss2d_scan(**ss2d_arguments())


def test_available_backends_gives_a_reason_for_each_missing_one() -> None:
    found = available_backends("cpu")
    assert tuple(found) == backend_names()
    assert found["reference"] is None
    assert found["portable"] is None
    assert found["numba"] is None
    assert found["mamba_ssm"]
    assert "CPU" in available_backends("cuda")["numba"]


def test_auto_takes_numba_on_the_cpu_and_the_reference_for_float64() -> None:
    for dtype, name in ((torch.float32, "numba"), (torch.bfloat16, "numba"), (torch.float64, "reference")):
        found = backends.find_backend("ss2d_scan", "auto", "cpu", None, dtype)
        assert found == f"ss2d_scan_{name}"


def test_auto_takes_standard_operators_where_there_are_no_kernels(caplog: pytest.LogCaptureFixture) -> None:
    for operator in backends.OPERATORS:
        for device in ("mps", "xpu"):
            assert backends.find_backend(operator, "auto", device, None, torch.float32) == f"{operator}_portable"
    assert chosen_backend("mps") == "portable" and chosen_backend("cpu") == "numba"
    assert not caplog.records  # nothing better could be had


def test_auto_warns_once_when_it_falls_back(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(
        backends,
        "unavailable_reason",
        lambda operator, backend, device, dtype: f"no {backend}; pip install {backend}",
    )
    backends._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger=backends.__name__):
        for _ in range(3):
            found = backends.find_backend("ss2d_scan", "auto", "cuda", 0, torch.float16)
    assert found == "ss2d_scan_portable"
    assert [record.message for record in caplog.records] == [
        "the scan runs on backend 'portable', which is slower than 'triton'. "
        "triton: no triton; pip install triton. mamba_ssm: no mamba_ssm; pip install mamba_ssm"
    ]
