"""MambaIRv2 in the trainer: what is drawn belongs to the batch, so that a run that was interrupted ends the same."""

import re
from pathlib import Path

import pytest
import torch

from mambair.archs import build_network, save_weights
from mambair.engine.train import draws
from tests.engine.tiny_run import HARD, read_weights, train, train_options, write_options
from tests.engine.two_processes import SETTINGS, assert_close, torchrun, without_gpu
from tests.faults.runs import assert_same_end

V2 = {
    "type": "MambaIRv2Light", "upscale": 2, "embed_dim": 8, "depths": [2], "num_heads": [2], "d_state": 2,
    "window_size": 4, "inner_rank": 2, "num_tokens": 4, "convffn_kernel_size": 3, "mlp_ratio": 1.0,
    "upsampler": "pixelshuffledirect",
}  # fmt: skip
CHANGES = {key: value for key, value in HARD.items() if not key.startswith("network_g")} | {
    "network_g": V2,
    "model_type": "MambaIRv2LightModel",
    "train__mixing_augs": None,
}
SHARED = {
    **SETTINGS,
    "network_g": V2,
    "model_type": "MambaIRv2LightModel",
    "datasets__train__batch_size_per_gpu": 2,
    "logger__print_freq": 1,
}


def losses(log: str) -> dict[str, str]:
    """The printed losses of a log by iteration."""
    return dict(re.findall(r"iter (\d)/\d .*l_pix ([\d.e+-]+)", log))


@pytest.fixture
def start(tmp_path: Path) -> dict[str, str]:
    """Weights to start from in which the choice of tokens tells: fresh networks' prompts and scales are tiny."""
    torch.manual_seed(0)
    network = build_network(V2)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "embedding" in name:
                parameter.normal_(std=3.0)
            elif "scale" in name:
                parameter.fill_(1.0)
    save_weights(network, tmp_path / "start.pth")
    return {"path__pretrain_network_g": str(tmp_path / "start.pth")}


def test_the_drawn_tokens_tell(
    tmp_path: Path, start: dict, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the tests below would compare nothing."""
    found = []
    for stream in (draws.FIRST_PHASE, draws.FIRST_PHASE + 1):
        monkeypatch.setattr(draws, "FIRST_PHASE", stream)
        assert train(tmp_path / str(stream), **(SHARED | start | {"train__total_iter": 1})) == 0
        found.append(losses(capfd.readouterr().out))
    assert found[0].keys() == found[1].keys() == {"1"} and found[0] != found[1]


def test_a_run_in_two_halves_ends_as_one(tmp_path: Path, start: dict) -> None:
    """Also with recomputation in the backward pass, which must meet the same tokens."""
    changes = CHANGES | start | {"network_g": V2 | {"use_checkpoint": True}}
    assert train(tmp_path / "whole", **changes) == 0
    assert train(tmp_path / "halves", **changes, train__total_iter=4) == 0
    assert train(tmp_path / "halves", "--auto_resume", **changes) == 0
    assert_same_end(tmp_path / "whole", tmp_path / "halves", 6)


@without_gpu
def test_two_processes_and_one_that_accumulates_have_equal_losses(
    tmp_path: Path, start: dict, capfd: pytest.CaptureFixture
) -> None:
    """Every micro-batch draws its own tokens, whichever process it falls to."""
    two, one = tmp_path / "two", tmp_path / "one"
    two.mkdir()
    together = losses(torchrun(two, "train.py", write_options(two, train_options(two, **SHARED, **start))).stdout)
    assert sorted(together) == ["1", "2", "3", "4"] and len(set(together.values())) == 4
    state = two / "experiments/tiny/training_states/2.state"
    assert train(one, path__resume_state=str(state), **SHARED, **start) == 0
    log = capfd.readouterr().out
    assert "total batch 4 = 1 process x 2 x 2 accumulation steps" in log
    assert losses(log) == {key: value for key, value in together.items() if key in "34"}
    assert_close(read_weights(one, 4), read_weights(two, 4))
