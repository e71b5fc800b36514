"""Folders and files that one process writes to, claimed so that no second one does; a dead holder's claim passes on.

A claim is a small file that is locked and names its holder. The system drops the lock of a process that ends in any
way. Where a file system has no locks, or keeps them to the machine that took them, as some network file systems do, the
record decides: its holder counts up in it every few seconds, and one that no longer counts is dead. No clocks of two
machines are compared.
"""

import errno
import json
import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from mambair.errors import UserError

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        # A byte far behind the record: on Windows others could not read what is locked.
        os.lseek(descriptor, 2**20, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        # POSIX locks, not flock's: forked loader workers do not inherit them, and NFS knows them.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


logger = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
"""Between two beats of a holder."""
SILENT_BEATS = 4
"""A holder that misses so many is dead."""
SETTLING_SECONDS = 2.0
"""Until two processes that write to one file without locks see the same content."""

_HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
_NO_LOCKS = {
    getattr(errno, name) for name in ("ENOLCK", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EINVAL") if hasattr(errno, name)
}
_RECORD_BYTES = 4096
CLOSED = -1

_held_here: set[str] = set()
"""The claims of this process: locks do not keep a process from itself."""
_held_here_guard = threading.Lock()


@dataclass(frozen=True)
class Holder:
    """Who holds a claim."""

    token: str
    """Tells two holders apart."""
    machine: str
    """Of the system that runs: locks are sure between processes of one."""
    host: str
    pid: int
    command: str
    since: str
    """Local time of the holder."""
    beats: int = 0

    def __str__(self) -> str:
        return f"{self.command}, process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def claimed(lock: Path, what: str, remedy: str) -> Iterator[None]:
    """Within this block, `lock` says that this process writes to `what`.

    The file, and folders made for it, are gone afterwards. A claim of a process that ended without giving it back is
    taken over: at once on the same machine, after half a minute where only its silence tells.

    Raises UserError, `<what>: is in use by <holder>; <remedy>`, if a process that lives holds it.
    """
    key = os.path.realpath(lock)
    with ExitStack() as stack:
        with _held_here_guard:
            if key in _held_here:
                raise UserError(f"{what}: is in use by this same process; {remedy}")
            _held_here.add(key)
        stack.callback(_held_here.discard, key)
        stack.enter_context(_made_for_now(lock.parent))
        claim = _Claim(lock)
        stack.callback(claim.close)
        try:
            other = claim.take()
        except OSError as error:
            raise UserError(f"{what}: cannot be claimed by writing {lock} ({error.strerror or error})") from error
        if other is not None:
            raise UserError(f"{what}: is in use by {other}; {remedy}")
        stack.callback(claim.give_back)
        yield


def lock_beside(path: Path) -> Path:
    """Where the claim of a folder or file lies: hidden beside it, so that it can be renamed."""
    return path.with_name(f".{path.name}.lock")


@contextmanager
def _made_for_now(folder: Path) -> Iterator[None]:
    """Make missing folders; those that are still empty afterwards are removed."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot make the folder: {error.strerror}") from None
    try:
        yield
    finally:
        with suppress(OSError):  # not empty
            for each in missing:
                each.rmdir()


class _Claim:
    """One attempt to hold a lock file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.me = Holder(
            token=secrets.token_hex(8),
            machine=_machine(),
            host=socket.gethostname(),
            pid=os.getpid(),
            command=_command(),
            since=datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        )
        self._descriptor = CLOSED
        self._stop = threading.Event()
        self._beating: threading.Thread | None = None

    def take(self) -> Holder | None:
        """Hold the file, or return who does."""
        locked = self._open_and_lock()
        if locked is None:
            return self._read() or _somebody()
        earlier = self._read()
        # A lock got is proof within one machine; between machines it may be that each has its own.
        if earlier is not None and not (locked and earlier.machine == self.me.machine):
            if self._lives(earlier):
                return earlier
            if locked and not self._lock_again():
                return self._read() or _somebody()
        self._write(self.me)
        if not locked:  # another successor may have written at the same time: the last one holds it
            time.sleep(SETTLING_SECONDS)
            now = self._read_anew()
            if now is None or now.token != self.me.token:
                return now or _somebody()
        self._beating = threading.Thread(target=self._beat, name="claim", daemon=True)
        self._beating.start()
        return None

    def _open_and_lock(self) -> bool | None:
        """True: locked; False: there are no locks here; None: another process has it."""
        while True:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(self._descriptor)
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    return False
                if error.errno in _HELD:
                    return None
                raise
            # Its last holder may have removed the file since it was opened: the lock is then one of no file.
            try:
                if os.path.samestat(os.fstat(self._descriptor), self.path.stat()):
                    return True
            except FileNotFoundError:
                pass
            self.close()

    def _read(self) -> Holder | None:
        """The holder that the open file names; None if it names none."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return _parse(os.read(self._descriptor, _RECORD_BYTES))

    def _read_anew(self) -> Holder | None:
        """The same by opening the file again, which is when network file systems look at the server.

        Closing any descriptor of a file drops this process's locks on it.
        """
        try:
            return _parse(self.path.read_bytes())
        except OSError:
            return None

    def _lock_again(self) -> bool:
        """Whether the lock could be taken again after `_read_anew`."""
        self.close()
        return self._open_and_lock() is True

    def _lives(self, holder: Holder) -> bool:
        """Whether a holder goes on counting; waits until it does, or has been silent for long enough."""
        seconds = round(BEAT_SECONDS * SILENT_BEATS)
        logger.info("%s is claimed by %s; waiting %d s for a sign of it", self.path.parent, holder, seconds)
        for _ in range(SILENT_BEATS):
            time.sleep(BEAT_SECONDS)
            now = self._read_anew()
            if now is None:
                return False
            if (now.token, now.beats) != (holder.token, holder.beats):
                return True
        return False

    def _write(self, holder: Holder) -> None:
        record = json.dumps(asdict(holder)).encode()
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, record.ljust(_RECORD_BYTES))  # always of one size: a full disk has room for it
        os.fsync(self._descriptor)

    def _beat(self) -> None:
        beats = 0
        while not self._stop.wait(BEAT_SECONDS):
            beats += 1
            with suppress(OSError):  # a disk that fails for a while
                self._write(replace(self.me, beats=beats))

    def give_back(self) -> None:
        """Remove the file, if it is still this process's."""
        self._stop.set()
        if self._beating is not None:
            self._beating.join()
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._descriptor), self.path.stat()):
                if sys.platform == "win32":  # which removes no open file
                    self.close()
                self.path.unlink()

    def close(self) -> None:
        """Close the file, and drop the lock with it."""
        if self._descriptor != CLOSED:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = CLOSED


def _somebody() -> Holder:
    """A holder that has not written who it is yet."""
    return Holder("", "", "an unknown machine", 0, "another process", "just now")


def _parse(record: bytes) -> Holder | None:
    try:
        return Holder(**json.loads(record))
    except (ValueError, TypeError):  # empty, or cut while it was written
        return None


def _machine() -> str:
    """A name for the running system that no other has, not even a restarted one."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return socket.gethostname()


def _command() -> str:
    """What this process is, as a user would say."""
    program = Path(sys.argv[0] or "python").name
    return "mambair " + " ".join(sys.argv[1:2]) if program in ("mambair", "__main__.py") else program
