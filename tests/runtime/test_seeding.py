import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mambair.runtime.seeding import get_rng_state, seed_everything, set_rng_state


@pytest.fixture(autouse=True)
def leave_global_generators_alone() -> Iterator[None]:
    state = get_rng_state()
    yield
    set_rng_state(state)
    torch.use_deterministic_algorithms(False)


def draws() -> tuple:
    # gauss() and an odd number of normals leave a cached value behind, which is part of the state
    return random.random(), random.gauss(0, 1), np.random.normal(), *torch.rand(3).tolist()


def test_equal_seeds_give_equal_draws() -> None:
    seed_everything(7)
    first = draws()
    seed_everything(7)
    assert draws() == first
    seed_everything(8)
    assert draws() != first


def test_seeds_beyond_numpys_limit() -> None:
    seed_everything(2**40 + 3)
    first = draws()
    seed_everything(2**40 + 3)
    assert draws() == first


def test_state_goes_through_a_weights_only_file(tmp_path: Path) -> None:
    seed_everything(1)
    draws()
    torch.save(get_rng_state(), tmp_path / "rng.state")
    expected = [draws() for _ in range(3)]
    seed_everything(99)
    set_rng_state(torch.load(tmp_path / "rng.state", weights_only=True))
    assert [draws() for _ in range(3)] == expected


def test_deterministic_switches_torch_on_and_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    seed_everything(0, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    seed_everything(0)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_state_of_the_gpu_is_restored() -> None:
    seed_everything(5)
    state = get_rng_state()
    first = torch.rand(4, device="cuda")
    set_rng_state(state)
    assert torch.equal(torch.rand(4, device="cuda"), first)
