"""What the networks promise beyond the golden cases: any size, every option, initialisation, checkpointing."""

import copy
import inspect
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mambair.archs import MambaIR, MambaIRUNet, build_network
from mambair.archs.blocks import VSSM
from mambair.archs.layers import CAB, LightCAB, reflect_to_multiple
from mambair.errors import UserError

TINY = {"type": "MambaIR", "embed_dim": 12, "depths": [1, 2], "d_state": 3, "mlp_ratio": 1.2}
UNET = {"type": "MambaIRUNet", "dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "mlp_ratio": 1.5}
VARIANTS = [
    TINY,
    TINY | {"in_chans": 1},
    TINY | {"upscale": 3, "upsampler": "pixelshuffle", "resi_connection": "3conv"},
    TINY | {"upscale": 8, "upsampler": "pixelshuffle", "compress_ratio": 2},
    TINY | {"upscale": 3, "upsampler": "pixelshuffledirect", "in_chans": 1},
    TINY | {"upscale": 2, "upsampler": "pixelshuffledirect", "patch_norm": False, "img_range": 255.0},
    TINY | {"local_block": "ca", "scan_directions": 2},
    TINY | {"local_block": "none", "scan_directions": 1},
    TINY | {"local_block": "mlp", "drop_rate": 0.1},
    UNET,
    UNET | {"bias": True, "drop_path_rate": 0.1},
    UNET | {"inp_channels": 1, "out_channels": 1, "local_block": "mlp"},
    UNET | {"dual_pixel_task": True, "inp_channels": 6, "out_channels": 3},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("size", [(1, 1), (7, 13)], ids=str)
def test_any_size_and_all_gradients(options, size):
    torch.manual_seed(0)
    network = build_network(options)
    x = torch.rand(2, network.in_channels, *size, requires_grad=True)
    y = network(x)
    out_channels = options.get("out_channels", network.in_channels)
    assert y.shape == (2, out_channels, network.scale * size[0], network.scale * size[1])
    y.sum().backward()
    assert torch.isfinite(x.grad).all()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_hyperparameters_rebuild_the_network(options):
    network = build_network(options)
    arguments = inspect.signature(type(network)).parameters
    assert list(network.hyperparameters) == list(arguments)
    again = build_network({"type": options["type"], **network.hyperparameters})
    assert again.hyperparameters == network.hyperparameters
    again.load_state_dict(network.state_dict())
    x = torch.rand(1, network.in_channels, 4, 6)
    assert torch.equal(network.eval()(x), again.eval()(x))


def test_defaults_leave_published_networks_as_they_are():
    assert isinstance(MambaIR().layers[0].residual_group.blocks[0].conv_blk, CAB)
    light = MambaIR(upscale=2, upsampler="pixelshuffledirect", depths=(1,))
    assert isinstance(light.layers[0].residual_group.blocks[0].conv_blk, LightCAB)


@pytest.mark.parametrize(("scale", "parameters"), [(2, 1363320), (3, 1371435), (4, 1382796)])
def test_the_light_network_of_the_papers_table_4(scale, parameters):
    options = {"upscale": scale, "embed_dim": 60, "depths": [6] * 4, "d_state": 16, "mlp_ratio": 1.5}
    with torch.device("meta"):
        network = MambaIR(**options, upsampler="pixelshuffledirect", compress_ratio=6)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_img_range_is_undone():
    torch.manual_seed(0)
    network = build_network(TINY | {"img_range": 255.0})
    nn.init.zeros_(network.conv_last.weight)
    nn.init.zeros_(network.conv_last.bias)
    x = torch.rand(1, 3, 3, 5)
    assert torch.allclose(network(x), x, atol=1e-6)


def test_published_files_dead_keys_are_dropped_with_a_warning(caplog):
    dead = {"window_size": 8, "interval": [4], "num_heads": [6], "img_size": 64, "patch_size": 1}
    build_network(TINY | dead)
    for key in ("window_size", "interval", "num_heads"):
        assert f"'{key}'" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TINY | {"upsampler": "nearest"}, "upsampler: 'nearest'"),
        (TINY | {"upscale": 2}, "upscale: 2 needs an upsampler"),
        (TINY | {"upscale": 6, "upsampler": "pixelshuffle"}, "must be 3 or a power of two"),
        (TINY | {"upscale": 0, "upsampler": "pixelshuffledirect"}, "upscale: 0"),
        (TINY | {"resi_connection": "2conv"}, "resi_connection: '2conv'"),
        (TINY | {"patch_size": 4}, "patch_size: 4"),
        (TINY | {"local_block": "conv"}, "local_block: 'conv'"),
        (TINY | {"scan_directions": 3}, "scan_directions: 3"),
        (TINY | {"compress_ratio": 13}, "compress_ratio: 13"),
        (TINY | {"embed_dims": 60}, "did you mean 'embed_dim'"),
        (UNET | {"num_blocks": [1, 1]}, "num_blocks"),
        (UNET | {"out_channels": 1}, "out_channels: 1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(UserError) as error:
        build_network(options)
    assert message in str(error.value)


def test_images_of_other_channels_are_refused():
    with pytest.raises(UserError, match=r"3 channel.*\(1, 1, 4, 4\)"):
        build_network(TINY)(torch.rand(1, 1, 4, 4))


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (3, 8), (9, 15)], ids=str)
def test_reflection_to_a_multiple(size):
    x = torch.rand(1, 2, *size)
    padded = reflect_to_multiple(x, 8)
    grow = [(0, 0), (0, 0), *((0, -side % 8) for side in size)]
    assert torch.equal(padded, torch.from_numpy(np.pad(x.numpy(), grow, mode="reflect")))


def test_initialisation():
    torch.manual_seed(0)
    scan = VSSM(64, d_state=16, mlp_ratio=2.0)
    assert torch.allclose(scan.A_logs, torch.arange(1.0, 17).log().expand(4 * 128, 16))
    assert torch.equal(scan.Ds, torch.ones(4 * 128))
    dt = F.softplus(scan.dt_projs_bias)
    assert dt.min() >= 1e-3 * 0.99 and dt.max() <= 1e-1 * 1.01
    assert dt.log().mean().item() == pytest.approx((math.log(1e-3) + math.log(1e-1)) / 2, abs=0.2)
    assert scan.dt_rank == 4 and scan.dt_projs_weight.abs().max() <= 0.5
    network = MambaIR(embed_dim=60, depths=(1,))
    block = network.layers[0].residual_group.blocks[0]
    assert block.self_attention.in_proj.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(block.skip_scale, torch.ones(60)) and torch.equal(block.ln_1.weight, torch.ones(60))


def test_drop_path_grows_linearly():
    network = MambaIR(embed_dim=12, depths=(2, 3), drop_path_rate=0.2)
    blocks = [block for layer in network.layers for block in layer.residual_group.blocks]
    rates = [block.drop_path_rate for block in blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize("options", [TINY | {"drop_path_rate": 0.9}, UNET | {"drop_path_rate": 0.9}], ids=str)
def test_checkpointing_gives_the_same_gradients(options):
    """Also with stochastic depth and dropout, whose draws must be the same in the second pass."""
    torch.manual_seed(0)
    plain = build_network(options)
    recomputing = build_network(options | {"use_checkpoint": True})
    recomputing.load_state_dict(plain.state_dict())
    x = torch.rand(4, 3, 8, 8)
    for network in (plain, recomputing):
        torch.manual_seed(1)
        network(x).square().sum().backward()
    for (name, first), second in zip(plain.named_parameters(), recomputing.parameters(), strict=True):
        assert torch.allclose(first.grad, second.grad, rtol=1e-5, atol=1e-7), name


def test_checkpointing_saves_memory():
    def saved_bytes(use_checkpoint):
        saved = {}
        network = build_network(TINY | {"depths": [4, 4], "use_checkpoint": use_checkpoint})

        def pack(tensor):
            saved[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(torch.rand(1, 3, 16, 16))
        return sum(saved.values())

    assert saved_bytes(True) < 0.4 * saved_bytes(False)


def test_checkpointing_from_outside():
    block = build_network(TINY).layers[0].residual_group.blocks[0]
    x = torch.rand(1, 4, 4, 12, requires_grad=True)
    checkpoint(block, x, use_reentrant=False).sum().backward()
    assert x.grad.abs().sum() > 0


def test_no_weight_decay_lists_the_scan_parameters():
    network = build_network(TINY)
    names = network.no_weight_decay()
    assert len(names) == 2 * 3
    assert all(name.endswith(("A_logs", "Ds")) for name in names)
    assert names <= dict(network.named_parameters()).keys()


@pytest.mark.parametrize("network_class", [MambaIR, MambaIRUNet])
def test_networks_can_be_copied(network_class):
    options = {key: value for key, value in (TINY if network_class is MambaIR else UNET).items() if key != "type"}
    network = network_class(**options).eval()
    twin = copy.deepcopy(network)
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(network(x), twin(x))


@pytest.mark.parametrize("options", [TINY, UNET], ids=str)
def test_autocast_stays_close_and_finite(options):
    torch.manual_seed(0)
    network = build_network(options)
    x = torch.rand(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = network(x)
    assert (y.float() - network(x)).abs().max() < 0.05
    y.float().sum().backward()
    scan = next(module for module in network.modules() if isinstance(module, VSSM))
    assert scan.A_logs.grad.dtype == torch.float32 and torch.isfinite(scan.A_logs.grad).all()


@pytest.mark.parametrize("options", [TINY, TINY | {"local_block": "light_cab"}, UNET], ids=str)
def test_convolutions_see_channels_last(options):
    """Any other layout costs a copy before and after the convolution, and on the CPU a slower kernel."""
    network = build_network(options)
    wrong = []

    def check(module, inputs, output):
        if not all(t.is_contiguous(memory_format=torch.channels_last) for t in (*inputs, output)):
            wrong.append(module)

    scan_convs = [module.conv2d for module in network.modules() if isinstance(module, VSSM)]
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module not in scan_convs:  # theirs are half of in_proj's output
            module.register_forward_hook(check)
    network(torch.rand(2, 3, 16, 24))
    assert not wrong


@pytest.mark.parametrize("options", [TINY, UNET], ids=str)
def test_compiles_without_a_graph_break(options):
    torch.manual_seed(0)
    network = build_network(options).eval()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    x = torch.rand(1, 3, 9, 8)
    assert torch.allclose(compiled(x), network(x), atol=1e-5)
    compiled(x).sum().backward()


@pytest.mark.parametrize(("options", "graphs"), [(TINY | {"depths": [4, 4]}, 2), (UNET | {"drop_path_rate": 0.1}, 6)])
def test_compiled_blocks_are_shared(options, graphs):
    """One graph without and one with stochastic depth for each width of feature map, however many blocks there are."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    network = build_network(options)
    counter = CompileCounter()
    network.compile(backend=counter, fullgraph=True)
    x = torch.rand(2, 3, 24, 24)
    torch.manual_seed(1)
    compiled = network(x)
    assert 1 <= counter.frame_count <= graphs
    torch.manual_seed(1)
    twin = copy.deepcopy(network)  # copies are not compiled
    assert torch.allclose(twin(x), compiled, atol=1e-5)
    compiled.sum().backward()


def test_stochastic_depth_drops_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    block = MambaIR(embed_dim=12, depths=(1, 1), drop_path_rate=0.25).layers[1].residual_group.blocks[0]
    keep = block.draw_keep(torch.zeros(4000, 1, 1, 12))
    assert keep.shape == (4000, 1, 1, 1)
    assert keep.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert keep.mean().item() == pytest.approx(1, abs=0.05)
    assert block.eval().draw_keep(torch.zeros(1, 1, 1, 12)) is None
