"""Gradients of the weights of a classic CAB's convolutions on a CUDA GPU, in bf16 and fp16, against float64."""

import pytest
import torch

pytest.importorskip("triton")

from tests.ops.rssb.weight_cases import both_outcomes, tile_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
        reason="no CUDA device of compute capability 8.0",
    ),
]

# Images, C, J.
CASES = [
    ((4, 64, 64), 180, 60), ((2, 65, 33), 180, 60), ((3, 7, 11), 131, 43), ((1, 1, 70), 192, 64), ((2, 40, 31), 96, 32),
    ((1, 64, 129), 48, 16),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("shape", "C", "J"), CASES)
def test_gradients_match_float64(shape: tuple[int, int, int], C: int, J: int, dtype: torch.dtype) -> None:
    """The products are exact in fp32; the rest are roundings of its sums."""
    tile = tile_of(C, J, dtype)
    found, expected = both_outcomes(shape, C, J, dtype, torch.float32, torch.device("cuda", 0), tile)
    errors = {name: ((found[name] - expected[name]).norm() / expected[name].norm()).item() for name in expected}
    assert {name: error for name, error in errors.items() if not error < 5e-5} == {}


def test_gradients_have_the_parameters_type_and_repeat_bit_by_bit() -> None:
    tile, dtypes = tile_of(180, 60, torch.bfloat16), [torch.bfloat16] * 2
    runs = [both_outcomes((2, 65, 33), 180, 60, *dtypes, torch.device("cuda", 0), tile)[0] for _ in "ab"]
    assert all(tensor.dtype == torch.bfloat16 for tensor in runs[0].values())
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
