"""Reading, writing and fitting weight files, and calling wrong ones by their names."""

import collections
import logging

import pytest
import torch
from safetensors.torch import load_file

from mambair.archs import (
    UNetDiscriminatorSN,
    build_network,
    detect_architecture,
    load_network,
    load_weights,
    read_state_dict,
    save_weights,
)
from mambair.errors import UserError

LIGHT = {"type": "MambaIR", "upscale": 2, "embed_dim": 12, "depths": [1, 2], "d_state": 3, "mlp_ratio": 1.2}
LIGHT |= {"upsampler": "pixelshuffledirect"}
CLASSIC = LIGHT | {"upsampler": "pixelshuffle", "resi_connection": "3conv"}
UNET = {"type": "MambaIRUNet", "dim": 8, "num_blocks": [1, 2, 1, 1], "num_refinement_blocks": 1, "mlp_ratio": 1.5}


def same_weights(first, second):
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


# --- detection ---------------------------------------------------------------------------------------------------


def test_published_layouts_are_recognised(layouts):
    for layout in layouts.values():
        state = {key: torch.empty(shape, device="meta") for key, shape in layout["state"].items()}
        detected = detect_architecture(state)
        without_effect = {"img_size", "img_range", "window_size", "interval", "num_heads"}
        expected = {key: value for key, value in layout["options"].items() if key not in without_effect}
        assert expected.items() <= ({"upsampler": "", "resi_connection": "1conv"} | detected).items()


@pytest.mark.parametrize(
    "options",
    [
        LIGHT,
        CLASSIC,
        CLASSIC | {"upscale": 3},
        CLASSIC | {"upscale": 8, "in_chans": 1},
        LIGHT | {"upsampler": "", "upscale": 1, "patch_norm": False, "embed_dim": 36, "mlp_ratio": 1.37},
        LIGHT | {"compress_ratio": 6},
        LIGHT | {"local_block": "cab"},
        CLASSIC | {"local_block": "light_cab", "scan_directions": 2},
        CLASSIC | {"local_block": "ca", "scan_directions": 1},
        CLASSIC | {"local_block": "none"},
        CLASSIC | {"local_block": "mlp"},
        UNET,
        UNET | {"bias": True, "compress_ratio": 2, "scan_directions": 1, "mlp_ratio": 1.25},
        UNET | {"dual_pixel_task": True, "inp_channels": 6, "local_block": "none"},
    ],
    ids=str,
)
def test_a_saved_network_is_rebuilt_from_its_shapes(options):
    network = build_network(options)
    state = network.state_dict()
    rebuilt = build_network(detect_architecture(state))
    assert {key: value.shape for key, value in rebuilt.state_dict().items()} == {
        key: value.shape for key, value in state.items()
    }
    assert rebuilt.scale == network.scale


def test_a_part_of_mambair_is_not_whole():
    state = build_network(LIGHT).state_dict()
    del state["layers.0.residual_group.blocks.0.self_attention.x_proj_weight"]
    with pytest.raises(UserError, match="x_proj_weight is missing"):
        detect_architecture(state)


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        (["layers.0.residual_group.layers.0.assm.x", "layers.0.residual_group.layers.0.win_mhsa.w"], "not whole"),
        (["layers.0.residual_group.blocks.0.attn.relative_position_bias_table"], "SwinIR"),
        (["layers.0.residual_group.overlap_attn.w", "layers.0.residual_group.blocks.0.conv_block.cab.0.w"], "HAT"),
        (["encoder_level1.0.attn.temperature"], "Restormer"),
        (["head.0.weight", "body.0.body.0.body.3.conv_du.0.weight"], "RCAN"),
        (["conv_first.weight", "body.0.conv1.weight"], "EDSR"),
        (["conv_first.weight", "body.0.rdb1.conv1.weight"], "Real-ESRGAN"),
        (list(UNetDiscriminatorSN(num_feat=8).state_dict()), "discriminator"),
        (["something.weight"], "no network known here"),
    ],
)
def test_other_networks_are_named(keys, name):
    with pytest.raises(UserError, match=name):
        detect_architecture(dict.fromkeys(keys, torch.zeros(1)))


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
@pytest.mark.parametrize("options", [LIGHT | {"img_range": 255.0, "drop_path_rate": 0.2}, UNET], ids=["light", "unet"])
def test_save_and_load_again(tmp_path, name, options):
    network = build_network(options)
    save_weights(network, tmp_path / name)
    loaded = load_network(tmp_path / name)
    assert same_weights(network, loaded)
    assert loaded.hyperparameters == network.hyperparameters
    assert not loaded.training
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_files_are_as_others_expect_them(tmp_path):
    network = build_network(LIGHT)
    ema = {key: value + 1 for key, value in network.state_dict().items()}
    save_weights(network, tmp_path / "net.pth", params_ema=ema)
    content = torch.load(tmp_path / "net.pth", weights_only=True)
    assert content["params"].keys() == content["params_ema"].keys() == network.state_dict().keys()
    save_weights(network, tmp_path / "net.safetensors")
    assert load_file(tmp_path / "net.safetensors").keys() == network.state_dict().keys()


@pytest.mark.parametrize("wrap", ["params", "params_ema", "state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_wrappers_and_prefixes_are_removed(tmp_path, wrap, prefix):
    network = build_network(LIGHT)
    state = {prefix + key: value for key, value in network.state_dict().items()}
    if prefix == "module.":
        state["n_averaged"] = torch.tensor(3)
    torch.save({wrap: state} if wrap else state, tmp_path / "net.pth")
    assert read_state_dict(tmp_path / "net.pth").keys() == network.state_dict().keys()
    assert same_weights(network, load_network(tmp_path / "net.pth"))


def test_param_key_chooses(tmp_path, caplog):
    network = build_network(LIGHT)
    ema = {key: value + 1 for key, value in network.state_dict().items()}
    save_weights(network, tmp_path / "net.pth", params_ema=ema)
    key = "norm.weight"
    assert torch.equal(read_state_dict(tmp_path / "net.pth")[key], ema[key])
    assert torch.equal(read_state_dict(tmp_path / "net.pth", "params")[key], network.state_dict()[key])
    other = build_network(LIGHT)
    load_weights(other, tmp_path / "net.pth", param_key="params_ema")
    assert torch.equal(other.state_dict()[key], ema[key])
    save_weights(network, tmp_path / "plain.pth")
    with pytest.raises(UserError, match="no 'params_ema' in the file; it has params"):
        read_state_dict(tmp_path / "plain.pth", "params_ema")
    with caplog.at_level(logging.WARNING):
        load_weights(other, tmp_path / "plain.pth", param_key="params_ema")
    assert "'params' is used" in caplog.text
    assert same_weights(other, network)


class Payload:
    def __reduce__(self):
        return print, ("this must not run",)


def test_wrong_files_are_named_for_what_they_are(tmp_path, capsys):
    def message(name, content=None):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save(content, path)
        with pytest.raises(UserError) as error:
            load_network(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "no such file" in message("missing.pth")
    assert "folder" in message(".")
    assert "empty" in message("empty.pth", b"")
    assert "web page" in message("page.pth", b"\n<!DOCTYPE html><html>")
    assert "Git LFS" in message("pointer.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0")
    assert "image" in message("photo.pth", b"\x89PNG\r\n\x1a\n" + bytes(64))
    assert "neither" in message("text.pth", b"some text that is long enough")
    assert "could run code" in message("code.pth", {"params": Payload()})
    assert "this must not run" not in capsys.readouterr().out
    state = {"epoch": 0, "iter": 5, "optimizers": [{}], "schedulers": [{"milestones": collections.Counter([5])}]}
    assert "training state" in message("5.state", state)
    assert "no weights in the file" in message("numbers.pth", {"epoch": 3})
    assert "list" in message("list.pth", [torch.zeros(1)])
    swinir = {"layers.0.residual_group.blocks.0.attn.relative_position_bias_table": torch.zeros(2)}
    assert "SwinIR" in message("swinir.pth", {"params": swinir})


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors", "legacy.pth"])
@pytest.mark.parametrize("kept", [0.3, 0.99])
def test_truncated_files(tmp_path, name, kept):
    network, path = build_network(LIGHT), tmp_path / name
    if name == "legacy.pth":
        torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    else:
        save_weights(network, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(UserError, match="truncated"):
        read_state_dict(path)


# --- fitting -----------------------------------------------------------------------------------------------------


def save(tmp_path, options):
    network = build_network(options)
    save_weights(network, tmp_path / "weights.pth")
    return network, tmp_path / "weights.pth"


def test_weights_of_another_scale_name_the_option(tmp_path):
    _, path = save(tmp_path, LIGHT | {"upscale": 3})
    network = build_network(LIGHT)
    with pytest.raises(UserError, match=r"MambaIR light SR x3 .* network_g is MambaIR light SR x2") as error:
        load_weights(network, path)
    assert "set network_g.upscale: 3, or use other weights" in str(error.value)
    assert "strict_load_g: false" in str(error.value)


def test_weights_of_another_network_name_the_option(tmp_path):
    _, path = save(tmp_path, UNET)
    with pytest.raises(UserError, match=r"set network_g\.type: MambaIRUNet"):
        load_weights(build_network(LIGHT), path)
    _, path = save(tmp_path, LIGHT | {"d_state": 4, "compress_ratio": 4})
    with pytest.raises(UserError, match=r"network_g.d_state: 4, .*network_g.compress_ratio: 4"):
        load_weights(build_network(LIGHT), path)
    torch.save({"encoder_level1.0.attn.temperature": torch.ones(1)}, path)
    with pytest.raises(UserError, match="are of Restormer, but network_g is MambaIR light SR x2"):
        load_weights(build_network(LIGHT), path)
    torch.save(UNetDiscriminatorSN(num_feat=4).state_dict(), path)
    with pytest.raises(UserError, match=r"do not fit network_d \(UNetDiscriminatorSN\).*: conv0.weight"):
        load_weights(UNetDiscriminatorSN(num_feat=8), path, where="network_d")


@pytest.mark.parametrize(
    ("old", "new", "skipped"),
    [
        (LIGHT, LIGHT | {"upscale": 3}, ["upsample.0.weight", "upsample.0.bias"]),
        (CLASSIC, CLASSIC | {"upscale": 3}, ["upsample.0.weight", "upsample.0.bias"]),
        (CLASSIC, CLASSIC | {"upscale": 4}, ["upsample.2.weight", "upsample.2.bias"]),
        (CLASSIC, CLASSIC, []),
    ],
)
def test_warm_start_skips_exactly_the_head(tmp_path, old, new, skipped):
    trained, path = save(tmp_path, old)
    network = build_network(new)
    untouched = {key: network.state_dict()[key].clone() for key in skipped}
    assert load_weights(network, path, strict=False) == skipped
    for key, value in network.state_dict().items():
        assert torch.equal(value, untouched[key] if key in skipped else trained.state_dict()[key])


def test_warm_start_refuses_everything_else(tmp_path):
    _, path = save(tmp_path, LIGHT)
    network = build_network(LIGHT | {"depths": [1, 1], "upscale": 3})
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(UserError, match=r"set network_g.upscale: 2, network_g.depths: \[1, 2\]"):
        load_weights(network, path, strict=False)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    state = build_network(LIGHT).state_dict()
    del state["norm.bias"]
    torch.save(state, path)
    with pytest.raises(UserError, match=r"keys are missing, extra or of another shape: norm.bias"):
        load_weights(build_network(LIGHT), path, strict=False)


def test_overrides(tmp_path):
    _, path = save(tmp_path, LIGHT)
    assert load_network(path, img_range=255.0).img_range == 255.0
    with pytest.raises(UserError, match="did you mean 'img_range'"):
        load_network(path, img_rang=255.0)
