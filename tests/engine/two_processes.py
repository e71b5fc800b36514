"""Runs of two processes on the CPU, and whether two runs learned the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROJECT = Path(__file__).resolve().parents[2]

# Adam divides gradients by their size: with its usual eps the rounding errors of tiny ones would be enlarged.
SETTINGS = {
    "num_gpu": "auto",
    "dist_params": {"timeout": 60},
    "train__optim_g": {"type": "Adam", "lr": 1e-3, "eps": 1e-3},
    "train__total_iter": 4,
    "logger__save_checkpoint_freq": 2,
    "val__val_freq": 4,
}

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="num_gpu: auto takes the CPU only without CUDA")


def torchrun(root: Path, script: str, options: Path) -> subprocess.CompletedProcess:
    """Run train.py or test.py by two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    finished = subprocess.run(
        [*command, str(PROJECT / "mambair" / script), "-opt", str(options), "--launcher", "pytorch"],
        cwd=root,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished


def assert_close(first: dict, second: dict) -> None:
    """The weights of two files, and their averages, are equal but for the order of sums."""
    for part in ("params", "params_ema"):
        assert first[part].keys() == second[part].keys()
        for key, value in first[part].items():
            torch.testing.assert_close(value, second[part][key], rtol=1e-4, atol=1e-6, msg=key)
