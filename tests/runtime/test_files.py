import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mambair.runtime.files import (
    TEMPORARY_PREFIX,
    FileMark,
    WrittenMeanwhileError,
    atomic_write,
    remove_leftovers,
    write_unless_changed,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_and_makes_parents(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "图 [1].pth"
    with atomic_write(target) as temporary:
        assert temporary.parent == target.parent and temporary.suffix == ".pth"
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert names(target.parent) == [target.name]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("torch")])
def test_a_failure_keeps_the_old_file_and_no_rubbish(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "net.pth"
    target.write_bytes(b"old")
    with pytest.raises(type(error)), atomic_write(target) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert target.read_bytes() == b"old" and names(tmp_path) == ["net.pth"]


def test_a_block_that_writes_nothing_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "net.pth"
    target.write_bytes(b"old")
    with pytest.raises(FileNotFoundError), atomic_write(target):
        pass
    assert target.read_bytes() == b"old"


def test_a_full_disk_at_flush_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "net.pth"
    target.write_bytes(b"old")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"), atomic_write(target) as temporary:
        temporary.write_bytes(b"new")
    assert target.read_bytes() == b"old" and names(tmp_path) == ["net.pth"]


def test_readers_never_see_a_part(tmp_path: Path) -> None:
    target = tmp_path / "state"
    contents = {bytes([value]) * 100_000 for value in range(20)}
    target.write_bytes(bytes([0]) * 100_000)
    seen, stop = set(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(target.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for content in sorted(contents):
        with atomic_write(target) as temporary:
            temporary.write_bytes(content)
    stop.set()
    reader.join()
    assert seen <= contents


def test_a_killed_writer_keeps_the_old_file_and_leaves_what_can_be_removed(tmp_path: Path) -> None:
    target = tmp_path / "net.pth"
    target.write_bytes(b"old")
    code = (
        "import os, signal, sys; from mambair.runtime.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as temporary:\n"
        "    temporary.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(target)], cwd=root, check=False)
    assert done.returncode == -9
    assert target.read_bytes() == b"old"
    (leftover,) = remove_leftovers(tmp_path)
    assert leftover.name.startswith(TEMPORARY_PREFIX)
    assert names(tmp_path) == ["net.pth"]


def test_of_two_that_write_a_new_file_the_first_wins(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    told = r"a\.png: another process wrote this result meanwhile"
    with pytest.raises(WrittenMeanwhileError, match=told), write_unless_changed(target) as mine:
        mine.write_text("mine")
        with write_unless_changed(target) as theirs:
            theirs.write_text("theirs")
    assert target.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [target]


def test_without_hard_links_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with write_unless_changed(tmp_path / "a") as mine:
        mine.write_text("mine")
    with pytest.raises(WrittenMeanwhileError), write_unless_changed(tmp_path / "a") as mine:
        mine.write_text("again")
    assert (tmp_path / "a").read_text() == "mine"


def test_only_the_file_that_was_there_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    earlier = FileMark.of(target)
    with write_unless_changed(target, earlier) as mine:
        mine.write_text("new")
    assert target.read_text() == "new"
    with pytest.raises(WrittenMeanwhileError), write_unless_changed(target, earlier) as mine:
        mine.write_text("newer")
    assert target.read_text() == "new"
    target.unlink()
    with write_unless_changed(target, earlier) as mine:
        mine.write_text("after it was removed")
    assert target.read_text() == "after it was removed"
    assert FileMark.of(tmp_path / "none") is None
