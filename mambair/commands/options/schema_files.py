"""The JSON schemas in the package, and the line by which an option file names one."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "options" / "schemas"
SCHEMA_LINE = "# yaml-language-server: $schema="


def schema_file(is_training: bool) -> Path:
    """The schema of training or of test files."""
    return FOLDER / ("train.schema.json" if is_training else "test.schema.json")


def schema_line(option_file: Path, is_training: bool) -> str:
    """The first line of an option file: editors take the schema from where it says.

    Files beside the package, as in a checkout, name it relative to themselves, so that the checkout can be moved.
    """
    schema, folder = schema_file(is_training), option_file.resolve().parent
    if folder.is_relative_to(FOLDER.parents[2]):
        return f"{SCHEMA_LINE}{Path(os.path.relpath(schema, folder)).as_posix()}"
    return f"{SCHEMA_LINE}{schema.as_uri()}"


def schema_text(schema: Mapping[str, Any]) -> str:
    """A schema as its file holds it."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
