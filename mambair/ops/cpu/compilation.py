"""How kernels are compiled: once per machine, then kept on disk."""

import hashlib
import logging
from collections.abc import Callable
from importlib import resources

from numba import njit

logger = logging.getLogger(__name__)

# numba's cache on disk watches only the file that a kernel itself is in. Kernels take this as the default of a last
# argument: it thereby becomes part of their signature, and a change in what they call compiles them anew.
SOURCES = hashlib.sha256(
    b"".join(resources.files("mambair.ops.cpu").joinpath(name).read_bytes() for name in ("simd.py", "recurrence.py"))
).hexdigest()


def kernel(function: Callable) -> Callable:
    """Compile `function` on its first call, without the interpreter's lock, and keep the result on disk.

    It is kept beside the source, else in the user's cache folder (or where NUMBA_CACHE_DIR says); where none can be
    written to, each process compiles for itself.
    """
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError as error:  # numba raises it here when it finds no folder for its cache
        logger.info("compiled kernels are not kept: %s", error)
        return njit(nogil=True, error_model="numpy")(function)
