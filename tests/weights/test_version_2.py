"""MambaIRv2's weights: read off their shapes, refused where they do not fit, called what they are."""

import pytest
import torch

from mambair.archs import build_network
from mambair.errors import UserError
from mambair.weights.detection import describe
from mambair.weights.loading import detect_architecture, load_network, load_weights, save_weights

V1 = {"type": "MambaIR", "upscale": 2, "embed_dim": 12, "depths": [1, 2], "d_state": 3, "mlp_ratio": 1.2}
V1 |= {"upsampler": "pixelshuffledirect"}
V2 = {
    "type": "MambaIRv2Light", "upscale": 2, "embed_dim": 12, "depths": [2, 1], "num_heads": [2, 3], "d_state": 3,
    "window_size": 4, "inner_rank": 3, "num_tokens": 5, "convffn_kernel_size": 3, "mlp_ratio": 1.5,
    "upsampler": "pixelshuffledirect",
}  # fmt: skip
VARIANTS = [
    V2,
    V2 | {"type": "MambaIRv2", "in_chans": 1, "upscale": 1, "upsampler": "", "resi_connection": "3conv"},
    V2 | {"type": "MambaIRv2", "upscale": 3, "upsampler": "pixelshuffle", "qkv_bias": False, "patch_norm": False},
    V2 | {"type": "MambaIRv2", "upscale": 4, "upsampler": "nearest+conv", "window_size": 5, "mlp_ratio": 2.0},
]


def test_the_published_configurations_are_recognised(layouts):
    found = {key: layout for key, layout in layouts.items() if key.startswith("MambaIRv2")}
    assert len(found) == 19
    for key, layout in found.items():
        state = {each: torch.empty(shape, device="meta") for each, shape in layout["state"].items()}
        options = detect_architecture(state)
        stated = {"upsampler": "", **layout["options"]}
        assert {each: options[each] for each in options.keys() & stated.keys()} == {
            each: stated[each] for each in options.keys() & stated.keys()
        }, key
        assert options["type"] == stated["type"]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_a_file_rebuilds_its_network(options, tmp_path):
    network = build_network(options).eval()
    torch.save({"params": network.state_dict()}, tmp_path / "bare.pth")
    save_weights(network, tmp_path / "ours.safetensors")
    x = torch.rand(1, network.in_channels, 6, 7)
    with torch.no_grad():
        expected = network(x)
        for name in ("bare.pth", "ours.safetensors"):
            assert torch.equal(load_network(tmp_path / name)(x), expected)
    assert load_network(tmp_path / "bare.pth", routing="gumbel").hyperparameters["routing"] == "gumbel"


@pytest.mark.parametrize(
    ("network", "weights", "messages"),
    [
        (V2, V1, ["are MambaIR light SR x2", "network_g is MambaIRv2Light light SR", "set network_g.type: MambaIR,"]),
        (V1, V2, ["are MambaIRv2Light light SR x2", "network_g is MambaIR light", "type: MambaIRv2Light"]),
        (V2, V2 | {"type": "MambaIRv2"}, ["set network_g.type: MambaIRv2,"]),
        (V2, V2 | {"window_size": 5}, ["window_size 5", "set network_g.window_size: 5"]),
        (V2, V2 | {"num_tokens": 6}, ["num_tokens 6", "set network_g.num_tokens: 6"]),
        (V2, V2 | {"inner_rank": 4}, ["inner_rank 4", "set network_g.inner_rank: 4"]),
        (V2, V2 | {"upscale": 3}, ["set network_g.upscale: 3", "strict_load_g: false"]),
    ],
)
def test_what_does_not_fit_is_called_what_it_is(network, weights, messages, tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"params": build_network(weights).state_dict()}, path)
    with pytest.raises(UserError) as error:
        load_weights(build_network(network), path)
    assert all(message in str(error.value) for message in messages), str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_of_no_window_is_named():
    state = dict(build_network(V2).state_dict())
    key = "layers.0.residual_group.layers.0.win_mhsa.relative_position_bias_table"
    state[key] = torch.zeros(48, 2)
    with pytest.raises(UserError, match="48 rows, which no window_size gives"):
        detect_architecture(state)


def test_description():
    words = "MambaIRv2Light light SR x2 (embed_dim 12, depths 2 1, d_state 3, num_heads 2 3, window_size 4, "
    assert describe(V2) == words + "inner_rank 3, num_tokens 5)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (V1 | {"inner_rank": 3}, "unknown key 'inner_rank' for MambaIR; it is a key of MambaIRv2 and MambaIRv2Light"),
        (V2 | {"scan_directions": 2}, "unknown key 'scan_directions' for MambaIRv2Light; it is a key of MambaIR"),
        (V2 | {"window_sizes": 8}, "did you mean 'window_size'"),
        (V2 | {"type": "MambaIRv3"}, "unknown network 'MambaIRv3'; did you mean 'MambaIRv2'"),
    ],
)
def test_options_of_the_other_version_are_named(options, message):
    with pytest.raises(UserError) as error:
        build_network(options)
    assert message in str(error.value) and "\n" not in str(error.value)
