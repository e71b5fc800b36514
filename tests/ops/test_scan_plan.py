"""How scans are cut into chunks."""

import importlib.util

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

CLASSIC = {"channels": 360, "states": 16, "rank": 12}
LIGHT = {"channels": 72, "states": 10, "rank": 4}
# Of an H200; forward and backward passes are fastest with these, as far as other numbers were measured.
CHUNKS = {
    (4, 64, 64): (CLASSIC, 22),
    (16, 64, 64): (LIGHT, 22),
    (1, 256, 256): (CLASSIC, 352),
    (1, 360, 640): (LIGHT, 1056),
    (8, 128, 128): ({"channels": 72, "states": 16, "rank": 3}, 88),
    (8, 64, 64): ({"channels": 144, "states": 16, "rank": 6}, 26),
    (8, 32, 32): ({"channels": 288, "states": 16, "rank": 12}, 14),
}


def chunks_of(batch: int, height: int, width: int, sizes: dict, processors: int = 132) -> int:
    from mambair.ops.ss2d.triton_plan import ScanShape, make_plan

    shape = ScanShape(batch, height, width, groups=2, senses=2, image=True, **sizes)
    return make_plan(shape, processors).chunks


@pytest.mark.parametrize("size", CHUNKS)
def test_chunks_fill_waves(size: tuple[int, int, int]) -> None:
    sizes, expected = CHUNKS[size]
    assert chunks_of(*size, sizes) == expected


@pytest.mark.parametrize("processors", [16, 40, 108, 170])
@pytest.mark.parametrize("size", [(1, 8, 8), (1, 3, 700), (64, 64, 64), (1, 1000, 1000), (300, 48, 48)])
def test_chunks_are_never_short_or_empty(size: tuple[int, int, int], processors: int) -> None:
    _, height, width = size
    for sizes in (CLASSIC, LIGHT):
        chunks = chunks_of(*size, sizes, processors)
        assert chunks == 1 or height * width / chunks >= 64
        assert chunks <= min(height * -(-width // 8), width * -(-height // 8))


def test_larger_gpus_take_no_fewer_chunks_of_large_images() -> None:
    counts = [chunks_of(1, 512, 512, CLASSIC, processors) for processors in (20, 40, 80, 132, 170)]
    assert counts == sorted(counts)
