"""Claims: one living holder at a time, and the next one does not wait for a dead one."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mambair.errors import UserError
from mambair.runtime import claims
from mambair.runtime.claims import claimed, lock_beside

HOLDER = """
import sys, time
from pathlib import Path
from mambair.runtime import claims
claims.BEAT_SECONDS = float(sys.argv[2])
with claims.claimed(Path(sys.argv[1]), "the folder", "wait"):
    print("held", flush=True)
    if len(sys.argv) > 3:
        import os
        if os.fork() == 0:
            time.sleep(60)
    sys.stdin.read()
"""


@contextmanager
def holder(lock: Path, beat: float = 10.0, *more: str) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", HOLDER, str(lock), str(beat), *more]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(claims, "SETTLING_SECONDS", 0.05)


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(claims, "_lock", refuse)


def test_a_second_process_is_told_who_holds_it(tmp_path: Path) -> None:
    lock = tmp_path / ".run.lock"
    with holder(lock) as process:
        began = time.monotonic()
        told = rf"^the folder: is in use by .*, process {process.pid} on .*; wait$"
        with pytest.raises(UserError, match=told), claimed(lock, "the folder", "wait"):
            pass
        assert time.monotonic() - began < 5
        assert lock.is_file()


def test_this_process_cannot_claim_twice(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    refused = pytest.raises(UserError, match="x: is in use by this same process; wait")
    with claimed(lock, "x", "wait"), refused, claimed(lock, "x", "wait"):
        pass
    with claimed(tmp_path / "lock", "x", "wait"):
        pass


def test_a_killed_holder_is_succeeded_at_once(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with holder(lock) as process:
        process.kill()
        process.wait()
        assert lock.is_file()
        began = time.monotonic()
        with claimed(lock, "x", "wait"):
            assert json.loads(lock.read_bytes())["pid"] == os.getpid()
        assert time.monotonic() - began < 5


def test_children_that_outlive_a_killed_holder_hold_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with holder(lock, 10.0, "with a child") as process:
        process.kill()
        process.wait()
        with claimed(lock, "x", "wait"):
            pass


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    lock = tmp_path / "new" / "folders" / "lock"
    with claimed(lock, "x", "wait"):
        assert lock.is_file()
    assert not list(tmp_path.iterdir())
    with claimed(lock, "x", "wait"):
        (lock.parent / "result").touch()
    assert [path.name for path in lock.parent.iterdir()] == ["result"]


@pytest.mark.usefixtures("quick")
def test_on_another_machine_beats_tell_whether_a_holder_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each machine keeps its locks to itself, both get one."""
    monkeypatch.setattr(claims, "_lock", lambda descriptor: None)
    monkeypatch.setattr(claims, "_machine", lambda: "another one")
    lock = tmp_path / "lock"
    with holder(lock, 0.05) as process:
        with pytest.raises(UserError, match=f"process {process.pid}"), claimed(lock, "x", "wait"):
            pass
        process.kill()
        process.wait()
        with claimed(lock, "x", "wait"):
            assert json.loads(lock.read_bytes())["pid"] == os.getpid()


@pytest.mark.usefixtures("quick", "no_locks")
def test_without_locks_beats_decide(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with holder(lock, 0.05) as process:
        with pytest.raises(UserError, match=f"process {process.pid}"), claimed(lock, "x", "wait"):
            pass
        process.kill()
        process.wait()
        with claimed(lock, "x", "wait"):
            pass
    assert not lock.exists()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_free_claim_is_got(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "SETTLING_SECONDS", 0.0)
    with claimed(tmp_path / "lock", "x", "wait"):
        pass


def test_a_record_that_is_none_stops_nobody(tmp_path: Path) -> None:
    for content in (b"", b"{", b"[]", b'{"pid": 1}', b"\xff" * 5000):
        (tmp_path / "lock").write_bytes(content)
        with claimed(tmp_path / "lock", "x", "wait"):
            pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: cannot make the folder"), claimed(tmp_path / "file/lock", "x", "wait"):
        pass


def test_the_lock_lies_beside(tmp_path: Path) -> None:
    assert lock_beside(tmp_path / "experiments" / "SR.x2") == tmp_path / "experiments" / ".SR.x2.lock"
