"""A thread that ends this process when another process of the run has failed.

A process that raises leaves the others waiting in a collective, where no Python code of theirs runs until the
process group's timeout (half an hour). The failing process leaves a note in the store that the processes met
through; a thread in each of the others reads it within seconds, says so, and ends its process.
"""

import json
import logging
import os
import sys
import threading
import traceback

import torch.distributed as dist

from mambair.errors import UserError

KEY = "first_failure"
POLL_SECONDS = 1.0
GRACE_SECONDS = 30.0
"""How long the failing process may clean up before it is ended too."""
LOST_PEER = (
    "another process does not answer: it was killed (out of memory, perhaps) or hangs, or its machine or network "
    "failed; the launcher's own lines tell which one"
)
CONTACT_LOST = {"rank": 0, "code": 1, "message": "contact lost; it was probably killed (out of memory, node failure)"}


class FailureWatch:
    """Announces this process's failure to the others and watches for theirs."""

    def __init__(self, store: dist.Store, rank: int) -> None:
        self._rank = rank
        # A connection of its own: the given one is locked while the main thread waits in it.
        self._notes = dist.PrefixStore("failure", store.clone())
        self._done = threading.Event()
        self._own_code: int | None = None  # set once this process fails itself
        self._thread = threading.Thread(target=self._watch, name="failure-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; the run ends as planned."""
        self._done.set()
        self._thread.join()

    def announce(self, error: BaseException) -> None:
        """Tell the other processes that this one fails; the first cause stands.

        Does not return where another process failed before and `error` is but the consequence (a lost connection).
        """
        self._own_code = exit_code(error)
        note = {"rank": self._rank, "code": self._own_code, "message": describe_failure(error)}
        try:
            first = json.loads(self._notes.compare_set(KEY, "", json.dumps(note)))
        except RuntimeError:  # the store went down with its process: the others know already
            return
        if first["rank"] != self._rank and not isinstance(error, (UserError, SystemExit, KeyboardInterrupt)):
            self._end_because(first)

    def _watch(self) -> None:
        while not self._done.wait(POLL_SECONDS):
            if self._own_code is not None:
                if not self._done.wait(GRACE_SECONDS):
                    os._exit(self._own_code)
                return
            try:
                failed = self._notes.check([KEY])
                note = json.loads(self._notes.get(KEY)) if failed else None
            except RuntimeError:  # torch's DistNetworkError and kin
                note = CONTACT_LOST
            if note is not None and self._own_code is None:
                self._end_because(note)

    def _end_because(self, note: dict) -> None:
        """End this process, at once and whatever its other threads wait for."""
        text = f"rank {note['rank']} failed: {note['message']}"
        if self._rank == 0:
            logging.getLogger("mambair").error(text)
        else:
            sys.stderr.write(f"[rank {self._rank}] ends, because {text}\n")
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(note["code"])


def exit_code(error: BaseException) -> int:
    """The code a process that fails with `error` exits with: 2 for the user's mistakes, 130 for Ctrl-C."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, UserError) else 1


def is_lost_peer(error: BaseException) -> bool:
    """Whether a collective failed since another process is gone, which then cannot say why itself."""
    # gloo's errors are plain RuntimeErrors that tell where in its sources they were raised.
    return isinstance(error, dist.DistError) or (type(error) is RuntimeError and "gloo/transport" in str(error))


def describe_failure(error: BaseException) -> str:
    """One line for the user's mistakes and for a process that is gone, the traceback for anything else."""
    if isinstance(error, UserError):
        return str(error)
    if is_lost_peer(error):
        return f"{LOST_PEER} ({str(error).splitlines()[0][:120]})"
    return "".join(traceback.format_exception(error)).strip()
