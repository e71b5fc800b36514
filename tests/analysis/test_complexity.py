"""Both countings: the paper's light network, the true parameter counts, and what the scan adds."""

import pytest
import torch
from torch import nn

from mambair.analysis.complexity import count_scans, measure_complexity
from mambair.analysis.scaling import LIGHT, PAPER_LIGHT, flops_by_size, full_attention_flops
from mambair.archs import build_network, vssm


@pytest.mark.parametrize(
    ("scale", "size", "parameters", "macs", "all_parameters"),
    [
        (2, (360, 640), "859K", "198.1G", 1_363_320),
        (3, (240, 426), "867K", "88.7G", 1_371_435),
        (4, (180, 320), "879K", "50.6G", 1_382_796),
    ],
)
def test_table_4_is_reproduced_by_the_module_counting(scale, size, parameters, macs, all_parameters) -> None:
    cost = measure_complexity(build_network(PAPER_LIGHT | {"upscale": scale}), *size)
    assert f"{cost.module_parameters / 1e3:.0f}K" == parameters
    assert f"{cost.module_macs / 1e9:.1f}G" == macs
    assert cost.parameters == all_parameters


def test_full_counting_of_a_network_small_enough_to_count_by_hand() -> None:
    network = build_network(
        {"type": "MambaIR", "upscale": 1, "embed_dim": 16, "depths": [1], "d_state": 3, "mlp_ratio": 2.0,
         "local_block": "none"}
    )  # fmt: skip
    height, width = 5, 7
    c, e, k, n, r = 16, 32, 4, 3, 1
    convolutions = 3 * c * 9 + 2 * c * c * 9 + c * 3 * 9 + e * 9  # first, after group and body, last, depthwise
    products = c * 2 * e + e * c + k * (r + 2 * n) * e + k * r * e  # in, out, x and dt projections
    cost = measure_complexity(network, height, width)
    assert cost.product_flops == 2 * height * width * (convolutions + products)
    assert cost.scan_flops == 9 * height * width * k * e * n + height * width * k * e
    assert cost.flops == cost.product_flops + cost.scan_flops


def test_full_counting_of_a_small_mambair_v2_by_hand() -> None:
    network = build_network(
        {"type": "MambaIRv2Light", "upscale": 2, "embed_dim": 12, "depths": [2], "num_heads": [2], "d_state": 3,
         "window_size": 4, "inner_rank": 3, "num_tokens": 5, "convffn_kernel_size": 3, "mlp_ratio": 1.5,
         "upsampler": "pixelshuffledirect"}
    )  # fmt: skip
    height, width, layers = 8, 12, 2
    c, e, n, r, tokens = 12, 18, 3, 2, 5
    ends = 3 * c * 9 + 2 * c * c * 9 + c * 12 * 9  # first, after group and body, to the image
    attention = c * 3 * c + 2 * 16 * c + c * c
    route = c * (c // 3) + (c // 3) * tokens
    scan = c * e + 9 * e + (r + 2 * n) * e + r * e + e * c
    feed_forward = c * e + 9 * (e // 2) + (e // 2) * c
    layer = attention + route + scan + 2 * feed_forward
    cost = measure_complexity(network, height, width)
    assert cost.product_flops == 2 * height * width * (ends + layers * layer) + layers * 2 * tokens * 3 * n
    assert cost.scan_flops == layers * (9 * height * width * e * n + height * width * e)


def test_the_network_is_left_as_it_was() -> None:
    network = build_network(LIGHT | {"upscale": 2, "depths": [1]})
    measure_complexity(network, 8, 8)
    assert network.conv_first.weight.device.type == "cpu" and network.training
    assert not network.conv_first._forward_hooks
    assert torch.isfinite(network(torch.rand(1, 3, 4, 4))).all()


def test_module_macs_of_known_layers() -> None:
    cost = measure_complexity(nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, groups=3), nn.AvgPool2d(2)), 4, 6)
    assert cost.module_macs == 6 * 24 * 9 + (6 * 24 + 6 * 6)
    assert cost.module_parameters == cost.parameters == 6 * 9 + 6


def test_a_scan_that_is_not_counted_does_not_go_unnoticed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_network(LIGHT | {"upscale": 2, "depths": [1]})
    monkeypatch.setattr(vssm.VSSM, "forward", lambda module, x: x)
    with pytest.raises(AssertionError, match="scan"):
        measure_complexity(network, 8, 8)


def test_counting_does_not_replace_the_scan_for_good() -> None:
    scan = vssm.ss2d_scan
    with count_scans() as counted:
        assert vssm.ss2d_scan is not scan
    assert vssm.ss2d_scan is scan and counted == []


def test_cost_grows_linearly_but_for_full_attention() -> None:
    flops = flops_by_size([48, 96])
    assert flops["MambaIR"][1] / flops["MambaIR"][0] == pytest.approx(4, rel=1e-3)
    assert flops["full attention"][1] / flops["full attention"][0] > 10
    if "SwinIR" in flops:
        assert flops["SwinIR"][1] / flops["SwinIR"][0] == pytest.approx(4, rel=0.02)
    assert full_attention_flops(48) > flops["MambaIR"][0]
