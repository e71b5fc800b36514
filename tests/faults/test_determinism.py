"""`deterministic: true`: the same run twice gives the same files, whatever the state of the process."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.tiny_run import HARD, train
from tests.faults.runs import assert_same_end

HARDER = {**HARD, "deterministic": True, "datasets__train__num_worker_per_gpu": 1}


@pytest.fixture(autouse=True)
def usual_algorithms_afterwards() -> None:
    yield
    torch.use_deterministic_algorithms(False)


def test_two_runs_are_identical(tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert train(tmp_path / name, **HARDER) == 0
        assert torch.are_deterministic_algorithms_enabled()
        random.seed(1)
        np.random.seed(2)
        torch.manual_seed(3)
        torch.rand(7)
    assert_same_end(tmp_path / "first", tmp_path / "second", 6)


def test_it_changes_no_number_on_the_cpu(tmp_path: Path) -> None:
    assert train(tmp_path / "with", **HARDER) == 0
    assert train(tmp_path / "without", **HARD) == 0
    assert_same_end(tmp_path / "with", tmp_path / "without", 6)


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    assert train(tmp_path / "first", **HARDER) == 0
    assert train(tmp_path / "second", **HARDER, manual_seed=4) == 0
    with pytest.raises(AssertionError):
        assert_same_end(tmp_path / "first", tmp_path / "second", 6)


UNET = {
    "model_type": "ImageCleanModel",
    "scale": 1,
    "datasets__train__type": "SyntheticDataset",
    "datasets__train__task": "denoising_color",
    "datasets__train__noise": 25,
    "datasets__train__dataroot_lq": None,
    "datasets__val__type": "SyntheticDataset",
    "datasets__val__task": "denoising_color",
    "datasets__val__noise": 25,
    "datasets__val__dataroot_lq": None,
    "network_g": {
        "type": "MambaIRUNet",
        "dim": 8,
        "num_blocks": [1, 1, 1, 1],
        "num_refinement_blocks": 1,
        "d_state": 2,
    },
}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("changes", [HARD, UNET], ids=["MambaIR", "MambaIRUNet"])
@pytest.mark.parametrize("amp", ["none", "bf16"])
def test_gpu_runs_are_identical_and_resume_exactly(tmp_path: Path, changes: dict, amp: str) -> None:
    changes = {**changes, "deterministic": True, "num_gpu": 1, "train__amp": amp}
    for name in ("first", "second"):
        assert train(tmp_path / name, **changes) == 0
    assert_same_end(tmp_path / "first", tmp_path / "second", 6)
    assert train(tmp_path / "halves", **changes, train__total_iter=4) == 0
    assert train(tmp_path / "halves", "--auto_resume", **changes) == 0
    assert_same_end(tmp_path / "first", tmp_path / "halves", 6)
