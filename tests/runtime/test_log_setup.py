import logging
import warnings
from pathlib import Path

import pytest

from mambair.runtime.log_setup import setup_logging


def test_console_and_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log_file = tmp_path / "logs" / "train.log"
    setup_logging(log_file, rank=0)
    logging.getLogger("mambair.data").info("read [bold]图.png[/bold] %d", 3)
    logging.getLogger("mambair").debug("not shown")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("from a library", stacklevel=1)
    lines = log_file.read_text(encoding="utf-8").splitlines()
    assert lines[0].endswith("INFO: read [bold]图.png[/bold] 3")
    assert "from a library" in lines[1] and "not shown" not in "".join(lines)
    shown = capsys.readouterr().out
    assert "read [bold]图.png[/bold] 3" in shown and "from a library" in shown


def test_a_second_call_does_not_double_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(None, rank=0)
    logger = setup_logging(tmp_path / "a.log", rank=0, debug=True)
    logger.debug("once")
    setup_logging(tmp_path / "a.log", rank=0)
    logger.info("twice")
    text = (tmp_path / "a.log").read_text()
    assert text.count("once") == 1 and text.count("twice") == 1
    shown = capsys.readouterr().out
    assert shown.count("once") == 1 and shown.count("twice") == 1


def test_other_ranks_print_errors_only_and_write_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = setup_logging(tmp_path / "a.log", rank=3)
    logger.warning("quiet")
    logger.error("loud")
    assert not (tmp_path / "a.log").exists()
    shown = capsys.readouterr().out
    assert "[rank 3] loud" in shown and "quiet" not in shown


def test_names_that_are_no_valid_text_are_logged(tmp_path: Path) -> None:
    logger = setup_logging(tmp_path / "a.log", rank=0)
    logger.handlers = [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
    logger.info("read %s", b"bad\xff.png".decode("utf-8", "surrogateescape"))
    assert "bad\\udcff.png" in (tmp_path / "a.log").read_text()


@pytest.mark.parametrize("turn", [1, 2])
def test_what_one_test_sets_up_another_does_not_find(turn: int, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("mambair.data").warning("turn %d", turn)
    assert f"turn {turn}" in caplog.text
    setup_logging(None, rank=1)  # which would keep the second one's warning back
