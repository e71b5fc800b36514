import subprocess
import sys
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from mambair.ops import selective_scan, ss2d_scan
from mambair.ops.flops import counts_flops, selective_scan_flops, ss2d_scan_flops
from tests.ops.cases import leaves, random_scan, random_ss2d

ROOT = Path(__file__).resolve().parents[2]


def test_rule_by_hand() -> None:
    assert selective_scan_flops(batch=2, length=3, channels=5, states=7) == 9 * 2 * 3 * 5 * 7 + 2 * 3 * 5
    # Projections to (dt, B, C), delta's projection, scan.
    products = 2 * 6 * 5 * 4 * (2 + 2 * 7) + 2 * 6 * 4 * 5 * 2
    assert ss2d_scan_flops(2, 3, 5, 7, 2, 4) == products + 9 * 6 * 20 * 7 + 6 * 20


def test_flop_counter_counts_the_scans() -> None:
    image = leaves(random_ss2d(torch.Generator().manual_seed(0)), torch.float32)
    with FlopCounterMode(display=False) as counter:
        ss2d_scan(**image, backend="numba").sum().backward()
    assert counter.get_total_flops() == 3 * ss2d_scan_flops(2, 35, 6, 4, 2, 4)
    sequence = leaves(random_scan(torch.Generator().manual_seed(0)), torch.float32)
    with FlopCounterMode(display=False) as counter:
        selective_scan(**sequence, backend="numba").sum().backward()
    assert counter.get_total_flops() == 3 * selective_scan_flops(2, 37, 6, 5)


def test_operators_that_are_defined_under_a_counter_are_counted() -> None:
    with FlopCounterMode(display=False) as outer, FlopCounterMode(display=False) as inner:

        @torch.library.custom_op("mambair::twice_for_a_test", mutates_args=())
        def twice(x: torch.Tensor) -> torch.Tensor:
            return 2 * x

        @counts_flops(torch.ops.mambair.twice_for_a_test)
        def _(x: tuple[int, ...], **_: object) -> int:
            return x[0]

        twice(torch.ones(7))
    assert outer.get_total_flops() == inner.get_total_flops() == 7
    with FlopCounterMode(display=False) as later:
        twice(torch.ones(5))
    assert later.get_total_flops() == 5


FIRST_SCAN = """
import torch
from torch.utils.flop_counter import FlopCounterMode
from mambair.ops import selective_scan

u = torch.rand(2, 6, 37)
with FlopCounterMode(display=False) as counter:
    selective_scan(u, u, -torch.rand(6, 5), *torch.rand(2, 2, 5, 37), backend="numba")
print(counter.get_total_flops())
"""


def test_the_first_scan_of_a_process_is_counted() -> None:
    run = subprocess.run(
        [sys.executable, "-c", FIRST_SCAN], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    )
    assert int(run.stdout) == selective_scan_flops(2, 37, 6, 5)


def test_all_formulas_are_registered_so() -> None:
    files = (ROOT / "mambair").rglob("*.py")
    found = [path.name for path in files if "register_flop_formula" in path.read_text(encoding="utf-8")]
    assert found == ["flops.py"]
