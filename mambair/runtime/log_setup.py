"""Logging of the commands: a rich console on the first process, a plain text file beside it.

Modules log to `logging.getLogger(__name__)`, all below the logger "mambair" that is set up here.
"""

import io
import logging
import sys
from logging.handlers import MemoryHandler
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

LOGGER_NAME = "mambair"
PLAIN_WIDTH = 160  # rich wraps at 80 columns where it does not know a terminal, which cuts log lines

for _stream in (sys.stdout, sys.stderr):
    if isinstance(_stream, io.TextIOWrapper):  # names that a terminal's encoding lacks are shown with backslashes
        _stream.reconfigure(errors="backslashreplace")

console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
"""The one console of a process; progress bars and log lines must share it."""


def setup_logging(log_file: Path | None, rank: int, debug: bool = False) -> logging.Logger:
    """Send log lines and Python warnings to the console and, if given, to `log_file` (appended to).

    Rank 0 logs from INFO (DEBUG if `debug`) on. Other ranks only print errors, and write no file. A second call
    replaces what the first one set up.
    """
    level = logging.DEBUG if debug else logging.INFO
    handlers: list[logging.Handler] = [_console_handler(rank, level, debug)]
    if rank == 0 and log_file is not None:
        handlers.append(_file_handler(log_file, level))
    # Off first: a second call alone would not take warnings back from a library that replaced the hook in between.
    logging.captureWarnings(False)
    logging.captureWarnings(True)
    for name in (LOGGER_NAME, "py.warnings"):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        for handler in handlers:
            logger.addHandler(handler)
        logger.setLevel(level if rank == 0 else logging.ERROR)
        logger.propagate = False  # libraries that configure the root logger would print every line again
    return logging.getLogger(LOGGER_NAME)


class EarlyLines:
    """Keeps what is logged before the log file exists, which must not exist before everything has been checked."""

    def __init__(self) -> None:
        self._memory = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
        logging.getLogger(LOGGER_NAME).addHandler(self._memory)

    def write_to_file(self) -> None:
        """Write them to the log file that has been set up since."""
        for handler in file_handlers():
            for record in self._memory.buffer:
                handler.handle(record)


def file_handlers() -> list[logging.Handler]:
    """What writes the log file, on the process that has one."""
    return [handler for handler in logging.getLogger(LOGGER_NAME).handlers if isinstance(handler, logging.FileHandler)]


class LogFile(logging.FileHandler):
    """A log file that a full disk does not turn into a traceback for every line: it is said once, and tried again."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Called by `emit` where a line could not be written."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            sys.stderr.write(f"{self.baseFilename}: lines cannot be written to the log ({error.strerror})\n")

    def close(self) -> None:
        """Close the file; what is still in memory is lost where the disk is full."""
        try:
            super().close()
        except OSError:
            self.stream = None


def _console_handler(rank: int, level: int, debug: bool) -> logging.Handler:
    handler = RichHandler(
        level if rank == 0 else logging.ERROR,
        console,
        show_path=False,
        rich_tracebacks=debug,
        markup=False,  # file names may hold [brackets]
        log_time_format="%Y-%m-%d %H:%M:%S",
    )
    handler.setFormatter(logging.Formatter("%(message)s" if rank == 0 else f"[rank {rank}] %(message)s"))
    return handler


def _file_handler(log_file: Path, level: int) -> logging.Handler:
    log_file.parent.mkdir(parents=True, exist_ok=True)
    # File names that are not valid UTF-8 are shown with backslashes, not refused.
    handler = LogFile(log_file, encoding="utf-8", errors="backslashreplace")
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
    return handler
