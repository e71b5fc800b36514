"""Starts training runs in processes of their own and kills them at given points; started by `processes.py`.

Reads jobs from its standard input and answers each on its standard output, both as lines of JSON:

    {"arguments": [...], "processes": 1, "kill": {"rank": 0, "where": "anywhere", "at": 1234} or null,
     "fault": as happenings.py has it, or null, "log": FILE}
    {"statuses": [...], "counts": {"anywhere": ..., "saving": ..., "steps": ...}}

Every run is a fork of this process, which has imported everything: that takes half a second where starting Python takes
five. A run counts what its main thread does: every Python function and every built-in function called in the package's
files, those called while files are saved, and the steps. At the given count it sends itself a SIGKILL.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch

from mambair.archs import build_network
from mambair.commands import train as train_command
from tests.engine.tiny_run import NETWORK
from tests.faults.happenings import let_happen

PACKAGE = str(Path(train_command.__file__).parents[1])
SAVING = (f"{PACKAGE}/engine/checkpoints/files.py", f"{PACKAGE}/runtime/files.py")
STEPPER = f"{PACKAGE}/engine/train/step.py"


class Counter:
    """Counts calls, and kills the process at one of them."""

    def __init__(self, kill: dict[str, Any] | None) -> None:
        self.counts = {"anywhere": 0, "saving": 0, "steps": 0}
        self.kill = kill

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """What sys.setprofile wants."""
        file = frame.f_code.co_filename
        if event not in ("call", "c_call") or not file.startswith(PACKAGE):
            return
        self._count("anywhere")
        if file in SAVING:
            self._count("saving")
        if event == "call" and file == STEPPER and frame.f_code.co_name == "step":
            self._count("steps")

    def _count(self, where: str) -> None:
        self.counts[where] += 1
        if self.kill is not None and where == self.kill["where"] and self.counts[where] == self.kill["at"]:
            os.kill(os.getpid(), signal.SIGKILL)


def run(job: dict[str, Any], rank: int, port: int) -> NoReturn:
    """Train in this process, which is a fork, and end it."""
    # torch makes its thread pool anew after a fork, at the first call, and two threads must not make it at once.
    torch.set_num_threads(1)
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout.reconfigure(line_buffering=True)
    if job["processes"] > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": job["processes"], "MASTER_PORT": port}
        os.environ.update({key: str(value) for key, value in place.items()}, MASTER_ADDR="localhost")
        job["arguments"] += ["--launcher", "pytorch"]
    if job["fault"]:
        let_happen(job["fault"], rank)
    kill = job["kill"] if job["kill"] and job["kill"]["rank"] == rank else None
    counter = Counter(kill)
    sys.setprofile(counter)
    code = train_command.main(job["arguments"])
    sys.setprofile(None)
    if rank == 0:
        Path(job["log"] + ".counts").write_text(json.dumps(counter.counts), encoding="utf-8")
    os._exit(code)


def warm_up() -> None:
    """Load the compiled kernels, which every fork would do anew; one thread each, so that nothing hinders forking."""
    torch.set_num_threads(1)
    network = build_network(NETWORK)
    network(torch.rand(1, 3, 8, 8)).sum().backward()
    assert len(list(Path("/proc/self/task").glob("*"))) == 1


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job's processes to their ends."""
    port = free_port()
    children = []
    for rank in range(job["processes"]):
        child = os.fork()
        if child == 0:
            try:
                run(job, rank, port)
            except SystemExit as error:
                os._exit(error.code)
            finally:  # whatever is raised: a fork must not go on reading its parent's jobs
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    counts = Path(job["log"] + ".counts")
    return {"statuses": statuses, "counts": json.loads(counts.read_text()) if counts.is_file() else {}}


def main() -> None:
    """Answer jobs until the input ends."""
    warm_up()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
