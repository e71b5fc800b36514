import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mambair.errors import UserError
from mambair.runtime import distributed
from mambair.runtime.distributed import ProcessGroup, first_host, init_distributed, slurm_environment

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).parent / "worker.py"
TIMEOUT = 60


@pytest.fixture
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in list(os.environ):
        if key.startswith(("SLURM_", "TORCHELASTIC_")) or key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
            monkeypatch.delenv(key)


def test_a_single_process_needs_no_group(no_launcher: None) -> None:
    assert init_distributed("none") == ProcessGroup(0, 1, 0)
    assert distributed.is_main_process()
    assert distributed.all_gather_object("x") == ["x"]
    assert distributed.broadcast_object("x") == "x"
    values = {"b": torch.tensor(2.0), "a": torch.tensor([1.0, 3.0], requires_grad=True)}
    assert distributed.reduce_mean(values) == {"b": 2.0, "a": 2.0}
    assert list(distributed.reduce_mean(values)) == ["b", "a"]
    assert distributed.reduce_mean({}) == {}
    distributed.barrier()
    with distributed.ending_together():
        pass
    distributed.shutdown()


def test_launchers_that_did_not_launch(no_launcher: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"RANK, WORLD_SIZE, MASTER_ADDR.* not set; start with torchrun"):
        init_distributed("pytorch")
    with pytest.raises(UserError, match=r"SLURM_PROCID.* not set; start with srun"):
        init_distributed("slurm")
    with pytest.raises(UserError, match="expected none, pytorch or slurm, got 'mpi'"):
        init_distributed("mpi")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(UserError, match="add --launcher pytorch"):
        init_distributed("none")


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("gpu[003-005,9],cpu1", "gpu003"),
        ("gpu[7,9-11]", "gpu7"),
        ("rack[1-2]n[04-06].local,x", "rack1n04.local"),
        ("a-b[1-3]", "a-b1"),
    ],
)
def test_first_host_of_slurms_notation(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


def test_slurm_environment() -> None:
    given = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_NODELIST": "gpu[2-3]"}
    expected = {
        "RANK": "3",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "gpu2",
        "MASTER_PORT": "29500",
    }
    assert slurm_environment(given) == expected
    assert slurm_environment({**given, "SLURM_STEP_NODELIST": "gpu3"}, 1234)["MASTER_ADDR"] == "gpu3"
    kept = slurm_environment({**given, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "5"})
    assert (kept["MASTER_ADDR"], kept["MASTER_PORT"]) == ("10.0.0.1", "5")
    with pytest.raises(UserError, match="SLURM_NODELIST not set"):
        slurm_environment({key: value for key, value in given.items() if key != "SLURM_NODELIST"})
    with pytest.raises(UserError, match="no host name"):
        first_host(",")


def run_two(mode: str) -> list[tuple[int, str]]:
    """Exit code and output of both processes, started as srun would."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MASTER_")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SLURM_NTASKS": "2", "SLURM_NODELIST": "localhost"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), mode, str(port)],
            env=environment | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=TIMEOUT)[0] for process in processes]
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]


def test_two_processes_meet_exchange_and_leave() -> None:
    for rank, (code, output) in enumerate(run_two("ok")):
        assert code == 0, output
        assert f"rank {rank} of 2 gathered [0, 10] broadcast zero mean {{'x': 0.5}} main {rank == 0}" in output
        assert "left" in output


def test_a_failing_process_ends_the_one_that_waits_and_rank_0_says_why() -> None:
    # Rank 1 fails and then hangs in its clean-up, so that its connections stay open.
    (code, output), (other_code, other_output) = run_two("fail")
    assert code == 2, output
    assert "rank 1 failed: x.yml:3: train.lr: too high" in output
    assert "Traceback" not in output
    assert other_code == 2, other_output


def test_a_killed_process_ends_the_other() -> None:
    (code, _), (other_code, other_output) = run_two("kill")
    assert code == -9
    assert other_code == 1, other_output
    assert "contact lost" in other_output
