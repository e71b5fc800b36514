"""Weights in whatever trainers and people put around them, and which ones of several are taken."""

import argparse
import datetime
import io
import logging
import pickle
import shutil
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mambair.archs import build_network, load_network, load_weights, read_state_dict, save_weights
from mambair.errors import UserError

LIGHT = {"type": "MambaIR", "upscale": 2, "embed_dim": 8, "depths": [1, 1], "d_state": 2, "mlp_ratio": 1.0}
LIGHT |= {"upsampler": "pixelshuffledirect"}
UNET = {"type": "MambaIRUNet", "dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "mlp_ratio": 1.0}


def under(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {prefix + key: value for key, value in state.items()}


def plus_one(network: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value + 1 for key, value in network.state_dict().items()}


def assert_loads(path: Path, expected: Mapping[str, torch.Tensor], options: Mapping[str, Any] = LIGHT) -> None:
    """By its keys alone, and into a network at hand."""
    given = build_network(dict(options))
    load_weights(given, path)
    for network in (load_network(path), given):
        state = network.state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], expected[key]) for key in expected)


@pytest.mark.parametrize("options", [LIGHT, UNET], ids=["light", "unet"])
@pytest.mark.parametrize(
    "prefix",
    ["model.", "net.", "generator.", "model.net.", "module.model.", "_orig_mod.module.", "lit.whatever.it.is.called."],
)
def test_one_prefix_before_all_keys(tmp_path: Path, options, prefix: str) -> None:
    state = build_network(options).state_dict()
    checkpoint = {"epoch": 3, "state_dict": under(prefix, state), "optimizer_states": [], "hyper_parameters": {}}
    torch.save(checkpoint, tmp_path / "a.ckpt")
    assert_loads(tmp_path / "a.ckpt", state, options)


@pytest.mark.parametrize("prefix", ["", "model.", "generator."])
@pytest.mark.parametrize(
    "beside", ["loss.vgg.features.0.weight", "criterion.weight", "discriminator.conv0.weight", "psnr_metric.total"]
)
def test_what_lies_beside_the_network_is_left_out(tmp_path: Path, caplog, prefix: str, beside: str) -> None:
    if prefix == "" and beside.startswith("psnr"):
        beside = "metrics.psnr.total"
    state = build_network(LIGHT).state_dict()
    torch.save({"state_dict": {**under(prefix, state), beside: torch.zeros(3)}}, tmp_path / "a.ckpt")
    with caplog.at_level(logging.INFO):
        assert_loads(tmp_path / "a.ckpt", state)
    assert "1 others are left out" in caplog.text


def test_parts_that_torch_wraps(tmp_path: Path) -> None:
    state = build_network(LIGHT).state_dict()
    for part in ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"):
        inside = {key.replace("layers.0.", f"layers.0.{part}."): value for key, value in state.items()}
        inside = {key.replace(".norm", f".{part}.norm"): value for key, value in inside.items()}
        torch.save({"params": under(f"{part}.", inside)}, tmp_path / "a.pth")
        assert_loads(tmp_path / "a.pth", state)


@pytest.mark.parametrize(
    "wrapper",
    [
        "ema",
        "model_ema",
        "generator",
        "net",
        "net_g",
        "netG",
        "network_g",
        "ema_state_dict",
        "G",
        "my_network",
        "model",
    ],
)
@pytest.mark.parametrize("inner", [None, "params", "state_dict"])
def test_wrappers(tmp_path: Path, wrapper: str, inner: str | None) -> None:
    state = build_network(LIGHT).state_dict()
    content = {
        wrapper: {inner: state} if inner else state,
        "iteration": 5,
        "discriminator": {"conv0.weight": torch.ones(1)},
    }
    torch.save(content, tmp_path / "a.pth")
    assert_loads(tmp_path / "a.pth", state)


@pytest.mark.parametrize("empty", [{}, None])
def test_empty_averages(tmp_path: Path, empty: dict | None) -> None:
    state = build_network(LIGHT).state_dict()
    torch.save({"params": state, "params_ema": empty}, tmp_path / "a.pth")
    assert_loads(tmp_path / "a.pth", state)


@pytest.mark.parametrize(
    "names",
    [
        ("params", "params_ema"),
        ("state_dict", "ema_state_dict"),
        ("model", "model_ema"),
        ("generator", "g_ema"),
        ("params", "EMA"),
        ("net_g", "net-g-ema"),
        ("model_state_dict", "model_state_dict_ema"),
        ("params", "averaged"),
        ("model", "swa_model"),
        ("weights", "shadow"),
        ("network_g", "ema_weights"),
    ],
)
def test_of_two_sets_the_averaged_one_is_taken_and_it_is_said(tmp_path: Path, caplog, names: tuple[str, str]) -> None:
    network = build_network(LIGHT)
    plain, averaged = network.state_dict(), plus_one(network)
    torch.save({names[0]: plain, names[1]: averaged}, tmp_path / "a.pth")
    with caplog.at_level(logging.INFO):
        assert_loads(tmp_path / "a.pth", averaged)
    assert f"the averaged weights ({names[1]}) are taken; the file has {names[0]} too" in caplog.text
    chosen = read_state_dict(tmp_path / "a.pth", names[0])
    assert all(torch.equal(chosen[key], plain[key]) for key in plain)


def test_of_two_networks_in_one_set_the_averaged_one_is_taken(tmp_path: Path) -> None:
    network = build_network(LIGHT)
    plain, averaged = network.state_dict(), plus_one(network)
    for first, second in (("model.", "ema_model."), ("", "ema."), ("net_g.", "net_g_ema.module.")):
        torch.save({"state_dict": {**under(first, plain), **under(second, averaged)}}, tmp_path / "a.ckpt")
        assert_loads(tmp_path / "a.ckpt", averaged)


def test_what_is_called_an_average_and_is_none(tmp_path: Path) -> None:
    state = build_network(LIGHT).state_dict()
    beside = {
        "ema_optimizer": {"a": torch.ones(1)},
        "net_d_ema": {"conv0.weight": torch.ones(1)},
        "ema": {"decay": 0.9},
    }
    torch.save({"params": state, **beside}, tmp_path / "a.pth")
    assert_loads(tmp_path / "a.pth", state)


def test_the_generator_among_networks_of_unknown_names(tmp_path: Path) -> None:
    state = build_network(LIGHT).state_dict()
    torch.save({"D_state": {"conv0.weight": torch.ones(1)}, "G_state": under("module.", state)}, tmp_path / "a.pth")
    assert_loads(tmp_path / "a.pth", state)


def test_counters_of_operations_are_left_out(tmp_path: Path, caplog) -> None:
    state = build_network(LIGHT).state_dict()
    counters = {f"{key.rpartition('.')[0]}.total_ops": torch.zeros(1) for key in [*state][:3]}
    counters |= {"total_params": torch.zeros(1)}
    for prefix in ("", "model."):
        torch.save({"params": under(prefix, {**state, **counters})}, tmp_path / "a.pth")
        with caplog.at_level(logging.INFO):
            assert_loads(tmp_path / "a.pth", state)
        assert f"{len(counters)} others are left out" in caplog.text


def test_values_beside_the_weights_and_arrays_of_numpy(tmp_path: Path) -> None:
    """Nothing of them runs: see tests/faults/test_hostile_files.py for what does."""
    state = build_network(LIGHT).state_dict()
    values = {"best": np.float64(31.5), "path": Path("x"), "when": datetime.datetime(2026, 1, 1), "seen": {1}}
    values |= {"args": argparse.Namespace(lr=1e-4, out=Path("y")), "log": defaultdict(list, loss=[np.float32(1)])}
    arrays = {key: value.numpy() for key, value in state.items()}
    for number, content in enumerate([{"params": state, **values}, {"state_dict": arrays, **values}, arrays]):
        torch.save(content, tmp_path / f"{number}.pth")
        assert_loads(tmp_path / f"{number}.pth", state)
    old = (tmp_path / "2.pth").read_bytes()
    with zipfile.ZipFile(io.BytesIO(old)) as archive, zipfile.ZipFile(tmp_path / "numpy1.pth", "w") as other:
        for name in archive.namelist():  # as NumPy 1 wrote them; the names are as long in the pickle's line
            other.writestr(name, archive.read(name).replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"))
    assert_loads(tmp_path / "numpy1.pth", state)


@pytest.mark.parametrize("change", ["half", "bfloat16", "double", "to_sparse"])
def test_weights_in_other_types(tmp_path: Path, change: str) -> None:
    state = build_network(LIGHT).state_dict()
    stored = {key: getattr(value, change)() for key, value in state.items()}
    torch.save(stored, tmp_path / "a.pth")
    assert_loads(tmp_path / "a.pth", {key: value.to_dense().float() for key, value in stored.items()})


def test_numbers_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    state = build_network(LIGHT).state_dict()
    for other, told in (
        ({"conv_first.bias": state["conv_first.bias"].int()}, r"conv_first\.bias holds numbers of int32"),
        ({"conv_first.bias": state["conv_first.bias"].to(torch.complex64)}, "numbers of complex64"),
        ({"conv_first.bias": state["conv_first.bias"].double() + 1e300}, "not finite"),
    ):
        torch.save({**state, **other}, tmp_path / "a.pth")
        with pytest.raises(UserError, match=told):
            load_network(tmp_path / "a.pth")


def test_a_pickle_of_something_else_is_not_called_damaged(tmp_path: Path) -> None:
    arrays = {"conv_first.weight": np.zeros(3, np.float32)}
    (tmp_path / "a.pth").write_bytes(pickle.dumps(arrays))
    with pytest.raises(UserError, match=r"torch\.save did not write"):
        load_network(tmp_path / "a.pth")


def test_a_training_checkpoint_with_weights_is_no_training_state(tmp_path: Path) -> None:
    state = build_network(LIGHT).state_dict()
    torch.save({"model": state, "optimizers": [{"state": {}, "param_groups": []}]}, tmp_path / "a.pth")
    assert_loads(tmp_path / "a.pth", state)


def test_the_content_tells_what_a_file_is(tmp_path: Path) -> None:
    network = build_network(LIGHT)
    for real in ("a.pth", "a.safetensors"):
        save_weights(network, tmp_path / real)
        for name in ("b.safetensors", "b.pth", "b.ckpt", "b"):
            shutil.copy(tmp_path / real, tmp_path / name)
            assert_loads(tmp_path / name, network.state_dict())


@pytest.mark.parametrize("real", ["net.pth", "net.safetensors"])
@pytest.mark.parametrize("upper", [False, True])
def test_a_zip_around_the_weights(tmp_path: Path, real: str, upper: bool) -> None:
    network = build_network(LIGHT)
    save_weights(network, tmp_path / real)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / real, f"release/{real.upper() if upper else real}")
        archive.writestr("release/README.md", "thanks")
        archive.writestr("__MACOSX/._net.pth", "x")
    assert_loads(tmp_path / "a.zip", network.state_dict())
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.write(tmp_path / real, "another.pth")
    with pytest.raises(UserError, match=r"a ZIP archive with 2 weight files \(.*another\.pth.*unpack it"):
        load_network(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("zip", "a ZIP archive without weights; unpack it"),
        (b"\x1f\x8b\x08" + bytes(60), "an archive (gzip); unpack it"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(60), "an archive (7z)"),
        (b"Rar!\x1a\x07" + bytes(60), "an archive (RAR)"),
        (bytes(257) + b"ustar" + bytes(100), "an archive (tar)"),
        (b"PK\x03\x04" + bytes(60), "truncated or damaged"),
    ],
)
def test_archives_are_called_what_they_are(tmp_path: Path, content: bytes | str, told: str) -> None:
    if content == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("photo.png", "x")
        content = buffer.getvalue()
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_network(tmp_path / "a.pth")
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    network = build_network(LIGHT).to(dtype)
    network.state_dict()["conv_first.weight"][0, 0, 0, 0] = value
    save_weights(network, tmp_path / "a.pth")
    told = r"a\.pth: 1 of \d+ tensors hold numbers that are not finite \(conv_first\.weight\)"
    with pytest.raises(UserError, match=told):
        load_network(tmp_path / "a.pth")
    given = build_network(LIGHT)
    before = {key: each.clone() for key, each in given.state_dict().items()}
    with pytest.raises(UserError, match=told):
        load_weights(given, tmp_path / "a.pth")
    assert all(torch.equal(each, before[key]) for key, each in given.state_dict().items())


def test_names_of_the_list_are_weights_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMBAIR_CACHE", str(tmp_path))
    network = build_network(LIGHT)
    save_weights(network, tmp_path / "lightSR_x2.pth")
    assert load_network("lightSR_x2").state_dict().keys() == network.state_dict().keys()
    with pytest.raises(UserError, match="weights get SR_x2"):
        load_network("SR_x2")
    with pytest.raises(UserError, match=r"weights lightSR_x22: no such file; did you mean 'lightSR_x2'"):
        load_network("lightSR_x22")
