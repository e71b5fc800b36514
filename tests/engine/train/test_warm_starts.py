"""The recipes that start from others' weights: what is taken over, what is listed as skipped, what is refused."""

import logging
from pathlib import Path

import pytest
import torch

from mambair.archs import build_network
from mambair.errors import UserError
from mambair.models.components import build_generator
from mambair.options import TrainOptions, parse_train_options

RECIPES = Path(__file__).resolve().parents[3] / "options" / "train"
SMALL = ["network_g:embed_dim=16", "network_g:depths=[1]", "network_g:d_state=2"]


def small(recipe: str, *overrides: str) -> TrainOptions:
    return parse_train_options(RECIPES / f"{recipe}.yml", force_yml=[*SMALL, *overrides])


def trained(recipe: str, path: Path) -> dict[str, torch.Tensor]:
    """Weights as a run of another recipe would have written them."""
    network = build_network(small(recipe).network_g)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    torch.save({"params": network.state_dict()}, path)
    return network.state_dict()


@pytest.mark.parametrize("recipe", ["SR_x3", "SR_x4"])
def test_larger_scales_take_all_but_the_head_from_x2(tmp_path, caplog, recipe):
    state = trained("SR_x2", tmp_path / "x2.pth")
    with caplog.at_level(logging.WARNING, logger="mambair"):
        network = build_generator(small(recipe, f"path:pretrain_network_g={tmp_path / 'x2.pth'}"))
    for key, value in network.state_dict().items():
        if not key.startswith("upsample."):
            assert torch.equal(value, state[key]), key
    listed = {word.strip(",") for word in caplog.text.split() if word.startswith("upsample.")}
    own = network.state_dict()
    head = {key for key in {*own, *state} if key.startswith("upsample.")}
    assert listed == {key for key in head if key not in own or key not in state or own[key].shape != state[key].shape}
    assert listed


@pytest.mark.parametrize(
    ("recipe", "start"),
    [
        ("ColorDN_25", "ColorDN_15"),
        ("ColorDN_50", "ColorDN_15"),
        ("GrayDN_25", "GrayDN_15"),
        ("GrayDN_50", "GrayDN_15"),
        ("CAR_q10", "CAR_q40"),
        ("CAR_q20", "CAR_q40"),
        ("CAR_q30", "CAR_q40"),
        ("colorCAR_q10", "colorCAR_q40"),
    ],
)
def test_weaker_degradations_give_all_their_weights(tmp_path, recipe, start):
    state = trained(start, tmp_path / "start.pth")
    network = build_generator(small(recipe, f"path:pretrain_network_g={tmp_path / 'start.pth'}"))
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("recipe", "other", "key"),
    [
        ("SR_x4", "ColorDN_15", "self_attention.A_logs"),
        ("ColorDN_25", "CAR_q40", "conv_first.weight"),
        ("CAR_q10", "SR_x2", "conv_first.weight"),
    ],
)
def test_any_other_mismatch_is_an_error_that_lists_keys(tmp_path, recipe, other, key):
    trained(other, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth") as error:
        build_generator(small(recipe, f"path:pretrain_network_g={tmp_path / 'other.pth'}"))
    assert key in str(error.value)


def test_beside_the_head_no_key_may_be_missing_or_extra(tmp_path):
    state = trained("SR_x2", tmp_path / "x2.pth")
    start = f"path:pretrain_network_g={tmp_path / 'x2.pth'}"
    norm = state.pop("norm.weight")
    torch.save({"params": state}, tmp_path / "x2.pth")
    with pytest.raises(UserError, match=r"another shape: norm\.weight, upsample\."):
        build_generator(small("SR_x4", start))
    torch.save({"params": {**state, "norm.weight": norm, "norm.scale": norm}}, tmp_path / "x2.pth")
    with pytest.raises(UserError, match=r"another shape: norm\.scale, upsample\."):
        build_generator(small("SR_x3", start))
