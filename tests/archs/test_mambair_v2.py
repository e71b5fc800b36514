"""What MambaIRv2 promises beyond the golden cases: any size, every option, routing, checkpointing, initialisation."""

import inspect

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from mambair.archs import build_network
from mambair.archs.assm import SelectiveScan
from mambair.archs.layers import mirror_to_multiple
from mambair.errors import UserError

TINY = {
    "type": "MambaIRv2", "embed_dim": 12, "depths": [2, 1], "num_heads": [2, 3], "d_state": 3, "window_size": 4,
    "inner_rank": 3, "num_tokens": 5, "convffn_kernel_size": 3, "mlp_ratio": 1.5,
}  # fmt: skip
LIGHT = TINY | {"type": "MambaIRv2Light", "upscale": 2, "upsampler": "pixelshuffledirect"}
VARIANTS = [
    TINY,
    LIGHT,
    TINY | {"in_chans": 1},
    LIGHT | {"in_chans": 1, "upscale": 3, "patch_norm": False, "img_range": 255.0},
    TINY | {"upscale": 3, "upsampler": "pixelshuffle", "resi_connection": "3conv"},
    TINY | {"upscale": 4, "upsampler": "nearest+conv"},
    TINY | {"qkv_bias": False, "window_size": 5, "routing": "gumbel"},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("size", [(1, 1), (7, 13)], ids=str)
@pytest.mark.parametrize("training", [False, True])
def test_any_size_and_all_gradients(options, size, training):
    torch.manual_seed(0)
    network = build_network(options).train(training)
    x = torch.rand(2, network.in_channels, *size, requires_grad=True)
    y = network(x)
    assert y.shape == (2, network.in_channels, network.scale * size[0], network.scale * size[1])
    y.sum().backward()
    assert torch.isfinite(x.grad).all()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_hyperparameters_rebuild_the_network(options):
    network = build_network(options)
    assert list(network.hyperparameters) == list(inspect.signature(type(network)).parameters)
    again = build_network({"type": options["type"], **network.hyperparameters})
    assert again.hyperparameters == network.hyperparameters
    again.load_state_dict(network.state_dict())
    x = torch.rand(1, network.in_channels, 4, 6)
    results = []
    for each in (network, again):
        torch.manual_seed(1)
        results.append(each.eval()(x))
    assert torch.equal(*results)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (4, 8), (9, 15)], ids=str)
def test_mirroring_to_a_multiple(size):
    x = torch.rand(1, 2, *size)
    grow = [(0, 0), (0, 0), *((0, -side % 8) for side in size)]
    assert torch.equal(mirror_to_multiple(x, 8), torch.from_numpy(np.pad(x.numpy(), grow, mode="symmetric")))


def test_the_same_image_gives_the_same_bits_unless_tokens_are_drawn():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 16, 16)
    network = build_network(LIGHT).eval()
    with torch.no_grad():
        assert torch.equal(network(x), network(x))
        drawing = build_network(LIGHT | {"routing": "gumbel"}).eval()
        drawing.load_state_dict(network.state_dict())
        assert not torch.equal(drawing(x), drawing(x))


def test_training_draws_tokens_from_the_global_generator():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 16, 16)
    network = build_network(LIGHT).train()
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(network(x))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


@pytest.mark.parametrize("options", [TINY, LIGHT], ids=str)
def test_checkpointing_gives_the_same_gradients_and_saves_memory(options):
    torch.manual_seed(0)
    plain = build_network(options)
    recomputing = build_network(options | {"use_checkpoint": True})
    recomputing.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 8, 8)
    sizes = []
    for network in (plain.train(), recomputing.train()):
        saved = {}

        def pack(tensor, saved=saved):
            saved[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = network(x).square().sum()
        loss.backward()
        sizes.append(sum(saved.values()))
    for (name, first), second in zip(plain.named_parameters(), recomputing.parameters(), strict=True):
        assert torch.allclose(first.grad, second.grad, rtol=1e-5, atol=1e-7), name
    assert sizes[1] < 0.5 * sizes[0]


def test_initialisation():
    torch.manual_seed(0)
    network = build_network(TINY | {"embed_dim": 60, "num_tokens": 50, "inner_rank": 20})
    layer = network.layers[0].residual_group.layers[0]
    assert torch.equal(layer.scale1, torch.full((60,), 1e-4)) and torch.equal(layer.scale2, layer.scale1)
    assert layer.wqkv.weight.std().item() == pytest.approx(0.02, rel=0.1) and not layer.wqkv.bias.any()
    assert layer.win_mhsa.relative_position_bias_table.std().item() == pytest.approx(0.02, rel=0.3)
    assert 0.9 / 50 < layer.assm.embeddingB.weight.abs().max() <= 1 / 50
    assert 0.9 / 20 < layer.embeddingA.weight.abs().max() <= 1 / 20
    scan = layer.assm.selectiveScan
    assert torch.allclose(scan.A_logs, torch.arange(1.0, 4).log().expand(90, 3)) and torch.equal(
        scan.Ds, torch.ones(90)
    )
    assert len(network.no_weight_decay()) == 2 * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TINY | {"upsampler": "nearest"}, "upsampler: 'nearest'"),
        (TINY | {"upsampler": "nearest+conv", "upscale": 2}, "must be 4"),
        (TINY | {"num_heads": [2]}, "num_heads: 1 groups, but depths has 2"),
        (TINY | {"num_heads": [2, 5]}, "num_heads: 5 must divide the 12 channels"),
        (TINY | {"window_size": 0}, "window_size: 0"),
        (TINY | {"convffn_kernel_size": 4}, "convffn_kernel_size: 4 must be odd"),
        (TINY | {"num_tokens": 0}, "num_tokens: 0 must lie between 1 and"),
        (TINY | {"routing": "random"}, "routing: 'random' is not one of argmax, gumbel"),
        (TINY | {"inner_ranks": 3}, "did you mean 'inner_rank'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(UserError) as error:
        build_network(options)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("options", [TINY, LIGHT], ids=str)
def test_autocast_stays_close_and_finite(options):
    torch.manual_seed(0)
    network = build_network(options).eval()
    x = torch.rand(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = network(x)
    assert (y.float() - network(x)).abs().max() < 0.05
    y.float().sum().backward()
    scan = next(module for module in network.modules() if isinstance(module, SelectiveScan))
    assert torch.isfinite(scan.A_logs.grad).all()


def test_layers_of_one_kind_share_compiled_code():
    torch.manual_seed(0)
    network = build_network(LIGHT | {"depths": [4, 4], "num_heads": [2, 2]}).eval()
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        expected = network(x)
        counter = CompileCounter()
        network.compile(backend=counter, fullgraph=True)
        assert torch.allclose(network(x), expected, atol=1e-6)
    assert counter.frame_count == 2  # with the windows shifted, and without
