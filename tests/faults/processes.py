"""Training runs in processes of their own, which can be killed for real."""

import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("training_process.py")
WORKER = Path(__file__).with_name("torchrun_worker.py")
SEED_VARIABLE = "MAMBAIR_FAULT_SEED"


def random_points() -> random.Random:
    """Where to kill. The seed is printed; the environment's MAMBAIR_FAULT_SEED repeats a failure."""
    seed = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().randrange(10**9))
    print(f"random kill points of {SEED_VARIABLE}={seed}")
    return random.Random(seed)


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    statuses: list[int]
    """Exit code of each process; -9 for one that was killed."""
    counts: Mapping[str, int]
    """What happened in the first process, if it ended by itself: calls anywhere, calls while saving, steps."""
    output: str
    """What it printed, spaces and line breaks as single spaces."""


class Trainers:
    """Forks training runs off one process; see training_process.py. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count()
        environment = {
            **{key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")},
            "PYTHONPATH": str(PROJECT),
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "Trainers":
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def train(
        self,
        options: Path,
        *flags: str,
        processes: int = 1,
        kill: Mapping[str, Any] | None = None,
        fault: Mapping[str, Any] | None = None,
    ) -> Ended:
        """Run `mambair train -opt options flags`.

        `kill`: {"rank": 0, "where": "saving", "at": 12}, as training_process.py counts; `fault`: see happenings.py.
        """
        log = self.folder / f"{next(self._numbers)}.txt"
        job = {"arguments": ["-opt", str(options), *flags], "processes": processes, "log": str(log)}
        self._process.stdin.write(json.dumps({**job, "kill": kill, "fault": fault}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        output = log.read_text(encoding="utf-8", errors="replace")
        return Ended(answer["statuses"], answer["counts"], one_line(output))


def one_line(output: str) -> str:
    """Output as one line, however the terminal broke it."""
    return " ".join(output.split())


def torchrun(
    options: Path, fault: Mapping[str, Any], *flags: str, restarts: int = 0, timeout: float = 150
) -> subprocess.CompletedProcess:
    """Train with two processes that torchrun starts; `fault`: see happenings.py. Errors and output in stdout."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [f"--max-restarts={restarts}", str(WORKER), "-opt", str(options), "--launcher", "pytorch", *flags]
    return subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "FAULT": json.dumps(dict(fault))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
