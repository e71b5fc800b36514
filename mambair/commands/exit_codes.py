"""Exit codes that the commands share, and the one place that turns a UserError into a line on the terminal."""

import errno
import functools
import os
import sys
from collections.abc import Sequence
from typing import Protocol

from mambair.errors import UserError

OK, SOME_FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130

OUTSIDE_CAUSES = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO")
    if hasattr(errno, name)  # quotas are not known everywhere
}
"""Failures of disks and rights, which are never a mistake of the program."""


class Main(Protocol):
    """A command: takes what was typed behind it, sys.argv where nothing is given, and returns the exit code."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


def reports_user_errors(main: Main) -> Main:
    """Let a command's `main(argv) -> exit code` end with one line and code 2 on a UserError, with 130 on Ctrl-C.

    So do full disks and missing rights end it.
    """

    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except UserError as error:
            if is_first_process():
                print(f"error: {error}", file=sys.stderr)
            return USER_ERROR
        except OSError as error:
            if error.errno not in OUTSIDE_CAUSES:
                raise
            print(f"error: {error.filename or 'a file'}: {error.strerror}; mend that and start again", file=sys.stderr)
            return USER_ERROR
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return INTERRUPTED

    return wrapped


def is_first_process() -> bool:
    """Whether this is the one process of a run that speaks: what is wrong with its options is wrong in all of them."""
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) == 0
