"""File names in messages."""

from pathlib import Path


def printable(path: str | Path) -> str:
    """A path as one line of an error message: quoted and escaped if it has newlines or other control characters."""
    text = str(path)
    return text if text.isprintable() else repr(text)
