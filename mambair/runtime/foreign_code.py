"""Calling other people's code, which may raise anything: a mistake in it becomes one line with the place in it."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mambair.errors import UserError

PACKAGE_FOLDER = Path(__file__).resolve().parents[1]


@contextmanager
def foreign_code(what: str, remedy: str = "") -> Iterator[None]:
    """Within this block any exception becomes a UserError: '<what> fails at <file>:<line>: ValueError: ...<remedy>'.

    UserErrors pass. The exception itself is the cause of the new one; --debug prints both.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the one place for it: nobody knows what foreign code raises
        raise UserError(f"{what} fails{place_of(error)}: {reason_of(error)}{remedy}") from error


def reason_of(error: BaseException) -> str:
    """Type and first line of an exception."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    first = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def place_of(error: BaseException) -> str:
    """' at <file>:<line>', the innermost line outside of this package and of installed ones, '' where there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {error.filename}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_somebodys(frame.filename)]
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _is_somebodys(file: str) -> bool:
    parts = Path(file).parts
    is_library = "site-packages" in parts or "dist-packages" in parts or file.startswith("<frozen")
    is_python = Path(traceback.__file__).parent in Path(file).parents and not is_library
    return not (is_library or is_python or PACKAGE_FOLDER in Path(file).resolve().parents)
