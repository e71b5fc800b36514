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
CONTACT_LOST = {"rank": 0, "code": 1, "message": "contact lost; it was probably killed (out of memory, node failure)"}


class FailureWatch:
    """Announces this process's failure to the others and watches for theirs."""

    def __init__(self, store: dist.Store, rank: int) -> None:
        self._rank = rank
        self._notes = dist.PrefixStore("failure", store)
        # A connection of its own: the first one is locked while the main thread waits in it.
        self._watched_notes = dist.PrefixStore("failure", store.clone())
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="failure-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; the run ends as planned."""
        self._done.set()
        self._thread.join()

    def announce(self, error: BaseException) -> None:
        """Tell the other processes that this one fails; the first cause stands."""
        note = json.dumps({"rank": self._rank, "code": exit_code(error), "message": describe_failure(error)})
        try:
            self._watched_notes.compare_set(KEY, "", note)
        except RuntimeError:  # the store went down with its process: the others know already
            return

    def _watch(self) -> None:
        while not self._done.wait(POLL_SECONDS):
            try:
                failed = self._watched_notes.check([KEY])
                note = json.loads(self._watched_notes.get(KEY)) if failed else None
            except RuntimeError:  # torch's DistNetworkError and kin
                note = CONTACT_LOST
            if note is not None and not self._done.is_set():
                self._end(note)

    def _end(self, note: dict) -> None:
        if note["rank"] == self._rank:
            if self._done.wait(GRACE_SECONDS):
                return
        else:
            text = f"process of rank {note['rank']} failed: {note['message']}\n"
            if self._rank == 0:
                logging.getLogger("mambair").error(text.rstrip())
            else:
                sys.stderr.write(f"[rank {self._rank}] ends because the {text}")
        logging.shutdown()
        sys.stderr.flush()
        os._exit(note["code"])


def exit_code(error: BaseException) -> int:
    """The code a process that fails with `error` exits with: 2 for the user's mistakes, 130 for Ctrl-C."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, UserError) else 1


def describe_failure(error: BaseException) -> str:
    """One line for the user's mistakes, the traceback for anything else."""
    if isinstance(error, UserError):
        return str(error)
    return "".join(traceback.format_exception(error)).strip()
