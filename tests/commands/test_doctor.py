"""The doctor tries what is there, names what is missing and how to fix it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mambair.commands import doctor
from mambair.commands.backend_trial import scan_error
from mambair.commands.doctor import Finding, check_backends, check_extras, check_import, main, try_backend

ROOT = Path(__file__).resolve().parents[2]


def test_the_report_covers_everything_and_nothing_is_broken(capsys) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    for subject in ("Python", "torch", "GPU", "scan 'reference' on cpu", "scan 'numba' on cpu", "gradio", "weights"):
        assert subject in printed
    assert "everything that is installed works" in printed and "BAD" not in printed


def test_a_backend_that_cannot_run_says_why() -> None:
    findings = {finding.subject: finding for finding in check_backends("cpu")}
    triton = findings["scan 'triton' on cpu"]
    assert triton.status == "note" and "GPU" in triton.detail
    assert findings["scan 'numba' on cpu"].status == "ok"


def test_a_backend_that_breaks_or_is_wrong_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = try_backend("scan", "no such backend", "cpu")
    assert broken.status == "bad" and "no such backend" in broken.detail and "MAMBAIR_SCAN_BACKEND" in broken.fix
    monkeypatch.setattr(doctor, "TRIAL_SECONDS", 0.01)
    assert "no result within" in try_backend("scan", "numba", "cpu").detail


def test_the_trial_measures_values_and_gradients() -> None:
    assert scan_error("reference", "cpu") == 0
    assert 0 < scan_error("numba", "cpu") < 1e-4


def test_broken_things_give_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("scan", "bad", "[red]wrong", "fix [it]")])
    assert main([]) == 1
    printed = capsys.readouterr().out
    assert "[red]wrong" in printed and "fix [it]" in printed and "1 problem(s)" in printed


def test_a_broken_pytorch_is_a_finding_and_the_rest_is_still_examined(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.99: cannot open shared object file')")
    done = subprocess.run(
        [sys.executable, "-m", "mambair", "doctor"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "OSError: libcudart.so.99" in done.stdout and "pip install --upgrade 'torch>=2.7'" in done.stdout
    assert "gradio" in done.stdout and "problem(s)" in done.stdout and "scan '" not in done.stdout


def test_a_package_that_is_too_old_is_bad() -> None:
    assert check_import("numpy", "numpy", (1,)).status == "ok"
    old = check_import("numpy", "numpy", (99, 1))
    assert old.status == "bad" and old.fix == "pip install --upgrade 'numpy>=99.1'"


def test_missing_extras_come_with_the_line_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"no-such-package": ("extra", "nothing")})
    assert list(check_extras()) == [
        Finding("no-such-package", "note", "not installed: nothing", "pip install 'mambair[extra]'")
    ]
