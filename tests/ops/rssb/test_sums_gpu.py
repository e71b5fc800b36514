"""The kernels that sum parts, and the channel attention in shares, on a CUDA GPU, against float64."""

import pytest
import torch

pytest.importorskip("triton")

from tests.ops.cases import relative_error
from tests.ops.rssb import sum_cases

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

GPU = torch.device("cuda", 0)
ATTENTIONS = [*sum_cases.ATTENTIONS, (4, 4096, 180), (1, 65536, 180), (1, 230400, 60), (2, 1000, 768)]


@pytest.mark.parametrize("sizes", sum_cases.SUMS)
def test_sums_match_float64(sizes: tuple[int, int, int]) -> None:
    found, expected = sum_cases.sums(*sizes, GPU)
    assert all(relative_error(found[name].cpu(), expected[name]) < 1e-5 for name in expected)


@pytest.mark.parametrize("sizes", ATTENTIONS)
def test_attention_matches_float64(sizes: tuple[int, int, int]) -> None:
    """And repeats bit by bit."""
    found, expected = sum_cases.attention(*sizes, GPU)
    errors = {name: relative_error(found[name].cpu(), expected[name]) for name in expected}
    assert {name: error for name, error in errors.items() if not error < 1e-4} == {}
    again, _ = sum_cases.attention(*sizes, GPU)
    assert all(torch.equal(found[name], again[name]) for name in found)
