"""The published formulation's arrangement of data, with the reference in place of mamba-ssm's CUDA kernel."""

import pytest
import torch

from mambair.ops import ss2d_scan
from mambair.ops.selective_scan.reference import selective_scan_reference
from mambair.ops.ss2d.mamba_ssm import ss2d_scan_mamba_ssm, unavailable_reason
from tests.ops.cases import gradients, leaves, random_ss2d, relative_error


@pytest.mark.parametrize("directions", [1, 2, 4])
@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_arrangement_equals_the_reference(directions: int, size: tuple[int, int]) -> None:
    height, width = size
    arguments = random_ss2d(torch.Generator().manual_seed(0), height=height, width=width, directions=directions)
    exact, found = leaves(arguments, torch.float64), leaves(arguments, torch.float32)
    y = ss2d_scan(**exact, directions=directions, backend="reference")
    y_found = ss2d_scan_mamba_ssm(**found, directions=directions, scan=selective_scan_reference)
    assert y_found.is_contiguous()
    assert relative_error(y_found, y) < 1e-5
    expected = gradients(y, torch.ones_like(y), exact)
    for name, gradient in gradients(y_found, torch.ones_like(y), found).items():
        assert relative_error(gradient, expected[name]) < 1e-5, name


def test_bfloat16_image_gives_bfloat16() -> None:
    arguments = {name: value.float() for name, value in random_ss2d(torch.Generator().manual_seed(0)).items()}
    arguments["x"] = arguments["x"].bfloat16()
    y = ss2d_scan_mamba_ssm(**arguments, directions=4, scan=selective_scan_reference)
    assert y.dtype == torch.bfloat16
    assert relative_error(y, ss2d_scan(**arguments, backend="reference")) < 5e-2


def test_reason_names_the_remedy() -> None:
    assert "backend 'numba'" in unavailable_reason(torch.device("cpu"))
