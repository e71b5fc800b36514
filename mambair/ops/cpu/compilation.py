"""How kernels are compiled: once per machine, then kept on disk."""

import hashlib
import logging
from collections.abc import Callable
from importlib import resources
from typing import Any

from numba import njit
from numba.core import event

logger = logging.getLogger(__name__)

# numba's cache on disk watches only the file that a kernel itself is in. Kernels take this as the default of a last
# argument: it thereby becomes part of their signature, and a change in what they call compiles them anew.
SOURCES = hashlib.sha256(
    b"".join(resources.files("mambair.ops.cpu").joinpath(name).read_bytes() for name in ("simd.py", "recurrence.py"))
).hexdigest()


class _Announcement(event.Listener):
    """Says once in a process that kernels are compiled, which takes so long that it looks like standing still."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.is_said = False

    def on_start(self, event: Any) -> None:
        """A function that is in no cache is about to be compiled."""
        if not self.is_said and event.data["dispatcher"].py_func.__module__ in self.modules:
            self.is_said = True
            logger.info("compiling kernels for this CPU, once per machine: up to a minute")

    def on_end(self, event: Any) -> None:
        """Nothing is to be said."""


_announcement = _Announcement()
event.register("numba:compile", _announcement)


def kernel(function: Callable) -> Callable:
    """Compile `function` on its first call, without the interpreter's lock, and keep the result on disk.

    It is kept beside the source, else in the user's cache folder (or where NUMBA_CACHE_DIR says); where none can be
    written to, each process compiles for itself.
    """
    _announcement.modules.add(function.__module__)
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError as error:  # numba raises it here when it finds no folder for its cache
        logger.info("compiled kernels are not kept: %s", error)
        return njit(nogil=True, error_model="numpy")(function)
