"""Which implementation of an operator runs: loading, availability and choice.

Every operator has one folder, and every backend one module in it with its function and
`unavailable_reason(device) -> str | None`. Modules are imported when they are first asked for, so that neither numba,
Triton nor mamba-ssm is needed to import the package.
"""

import functools
import importlib
import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch

from mambair.errors import UserError
from mambair.registry import did_you_mean

logger = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "MAMBAIR_SCAN_BACKEND"

OPERATORS = ("selective_scan", "ss2d_scan", "attentive_scan")

# Backend name -> module name inside the operator's folder; the function in it is <operator>_<backend>.
_MODULES = {
    "reference": "reference",
    "portable": "portable",
    "numba": "numba_cpu",
    "triton": "triton_cuda",
    "mamba_ssm": "mamba_ssm",
}
_FOLDERS = {
    "selective_scan": "mambair.ops.selective_scan",
    "ss2d_scan": "mambair.ops.ss2d",
    "attentive_scan": "mambair.ops.attentive_scan",
}
_PACKAGES = {"numba": "numba", "triton": "triton", "mamba_ssm": "mamba-ssm"}

# What "auto" tries, in order, before it settles for standard operators.
_PREFERENCES = {"cpu": ("numba",), "cuda": ("triton", "mamba_ssm")}
_FLOAT64 = ("reference", "portable")


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type a scan computes in for inputs of `dtype`: float64 stays, everything else is float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Where a scan computes in its own type; nothing in exported graphs, which have no autocast and cannot say so."""
    return nullcontext() if torch.compiler.is_exporting() else torch.autocast(device_type, enabled=False)


def backend_names() -> tuple[str, ...]:
    """The names that `backend=` accepts, besides "auto"."""
    return tuple(_MODULES)


@functools.cache
def _load(operator: str, backend: str) -> ModuleType | str:
    """The backend's module, or the reason why it cannot be imported."""
    try:
        return importlib.import_module(f"{_FOLDERS[operator]}.{_MODULES[backend]}")
    except ImportError as error:
        return f"it cannot be imported ({error}); install it with: pip install {_PACKAGES[backend]}"


def unavailable_reason(operator: str, backend: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why `backend` cannot run `operator` on tensors of this device and type, with the remedy; None when it can."""
    module = _load(operator, backend)
    if isinstance(module, str):
        return module
    if dtype == torch.float64 and backend not in _FLOAT64:
        return "it computes in float32 and was given float64; use backend='reference', or float32 tensors"
    return module.unavailable_reason(device)


def available_backends(device: torch.device | str = "cpu") -> dict[str, str | None]:
    """Each backend's name with None if it runs float32 tensors on `device`, else the reason and the remedy."""
    device = torch.device(device)
    found = {}
    for backend in _MODULES:
        reasons = (unavailable_reason(operator, backend, device, torch.float32) for operator in OPERATORS)
        found[backend] = next((reason for reason in reasons if reason is not None), None)
    return found


def chosen_backend(device: torch.device | str) -> str:
    """What "auto" means for float32 tensors on `device`."""
    return _resolve_name("ss2d_scan", "auto", torch.device(device), torch.float32)


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)


def _choose(operator: str, device: torch.device, dtype: torch.dtype) -> str:
    """What "auto" means for tensors of this device and type."""
    if dtype == torch.float64:
        return "reference"
    preferences = _PREFERENCES.get(device.type, ())
    refused = []
    for backend in preferences:
        reason = unavailable_reason(operator, backend, device, dtype)
        if reason is None:
            break
        refused.append(f"{backend}: {reason}")
    else:
        backend = "portable"
    # Taking the second choice costs minutes or hours and would otherwise go unseen.
    if refused:
        slower = f"the scan runs on backend '{backend}', which is slower than '{preferences[0]}'"
        _warn_once(f"{slower}. {'. '.join(refused)}")
    return backend


def _resolve_name(operator: str, backend: str, device: torch.device, dtype: torch.dtype) -> str:
    origin = f"backend '{backend}'"
    if backend == "auto" and torch.compiler.is_exporting():
        return "portable"  # no other consists of operators that are known outside of this package
    if backend == "auto":
        backend = os.environ.get(ENVIRONMENT_VARIABLE, "auto") or "auto"
        origin = f"{ENVIRONMENT_VARIABLE}={backend}"
    if backend == "auto":
        return _choose(operator, device, dtype)
    if backend not in _MODULES:
        names = ", ".join(("auto", *_MODULES))
        raise UserError(f"{origin}: {operator} has no such backend{did_you_mean(backend, _MODULES)}; known: {names}")
    reason = unavailable_reason(operator, backend, device, dtype)
    if reason is not None:
        raise UserError(f"{origin} cannot run {operator} here: {reason}")
    return backend


# Functions of the backends in use, by the names that `find_backend` returns. Looked up by the caller, because
# torch.compile can trace a look-up in a dictionary but not a function that returns a function.
FUNCTIONS: dict[str, Callable] = {}


def find_backend(operator: str, backend: str, device_type: str, device_index: int | None, dtype: torch.dtype) -> str:
    """Key in FUNCTIONS of `backend` (or of what "auto" chooses) for tensors of this device and type.

    "auto" follows the environment variable MAMBAIR_SCAN_BACKEND if that is set. Raises UserError for an unknown name
    and for a named backend that cannot run; only "auto" chooses another one.
    """
    device = torch.device(device_type) if device_index is None else torch.device(device_type, device_index)
    name = _resolve_name(operator, backend, device, dtype)
    key = f"{operator}_{name}"
    FUNCTIONS[key] = getattr(_load(operator, name), key)
    return key


# What torch.compiler.assume_constant_result does; that also imports the whole compiler, 1.5 s at every start.
find_backend.__dict__["_dynamo_marked_constant"] = True
