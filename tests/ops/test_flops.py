import torch
from torch.utils.flop_counter import FlopCounterMode

from mambair.ops import available_backends, selective_scan, ss2d_scan
from mambair.ops.flops import selective_scan_flops, ss2d_scan_flops
from tests.ops.cases import leaves, random_scan, random_ss2d


def test_rule_by_hand() -> None:
    assert selective_scan_flops(batch=2, length=3, channels=5, states=7) == 9 * 2 * 3 * 5 * 7 + 2 * 3 * 5
    # Projections to (dt, B, C), delta's projection, scan.
    products = 2 * 6 * 5 * 4 * (2 + 2 * 7) + 2 * 6 * 4 * 5 * 2
    assert ss2d_scan_flops(2, 3, 5, 7, 2, 4) == products + 9 * 6 * 20 * 7 + 6 * 20


def test_flop_counter_counts_the_scans() -> None:
    available_backends("cpu")  # formulas are registered when a backend is loaded
    image = leaves(random_ss2d(torch.Generator().manual_seed(0)), torch.float32)
    with FlopCounterMode(display=False) as counter:
        ss2d_scan(**image, backend="numba").sum().backward()
    assert counter.get_total_flops() == 3 * ss2d_scan_flops(2, 35, 6, 4, 2, 4)
    sequence = leaves(random_scan(torch.Generator().manual_seed(0)), torch.float32)
    with FlopCounterMode(display=False) as counter:
        selective_scan(**sequence, backend="numba").sum().backward()
    assert counter.get_total_flops() == 3 * selective_scan_flops(2, 37, 6, 5)
