"""Every key of an option file with its value in effect and where that comes from: `mambair options show` and `diff`."""

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mambair.commands.options.components import PROGRAM_ARGUMENTS, registries
from mambair.options import TestOptions, TrainOptions
from mambair.options.degradation_schema import DegradationFields, KernelFields
from mambair.options.source import OptionSource
from mambair.options.walking import Setting, walk
from mambair.options.yaml_reader import KeyPath

DEFAULT = "default"
RARE = (DegradationFields, KernelFields)
"""Sections of many keys that only real-world super-resolution reads: left out where a file sets none of them."""


@dataclass(frozen=True)
class Row:
    """A key with its value in effect."""

    key: str
    value: str
    """As YAML would have it."""
    origin: str
    """file:line, the argument that set it, or 'default'."""

    @property
    def is_given(self) -> bool:
        """Whether file or command line set it."""
        return self.origin != DEFAULT


def resolve(options: TrainOptions | TestOptions, everything: bool = False) -> list[Row]:
    """All keys in effect, components' own defaults included; with `everything` also keys that nothing here reads."""
    settings = list(walk(options))
    rows = [row for setting in settings for row in _rows(setting, options.source)]
    if everything:
        return rows
    hidden = {setting.key for setting in settings if _is_rare(setting)}
    for group in RARE:
        members = {setting.key for setting in settings if setting.section is group}
        if any(row.is_given for row in rows if row.key in members):
            hidden -= members
    return [row for row in rows if row.key not in hidden]


def _is_rare(setting: Setting) -> bool:
    return setting.section in RARE


def _rows(setting: Setting, source: OptionSource) -> Iterator[Row]:
    components = list(setting.components())
    if not components:
        yield Row(setting.key, as_text(setting.value), origin_of(source, setting.path))
    for path, block in components:
        for key, value in {**block, **_defaults(setting.registered, block)}.items():
            origin = origin_of(source, (*path, key)) if key in block else DEFAULT
            yield Row(".".join((*path, key)), as_text(value), origin)


def _defaults(kind: str | None, block: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that a block leaves to the component; nothing for a name that is not registered."""
    registry = registries().get(kind or "")
    if registry is None or block["type"] not in registry:
        return {}
    parameters = inspect.signature(registry.get(block["type"])).parameters.values()
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.default is not parameter.empty and parameter.name not in {*block, *PROGRAM_ARGUMENTS}
    }


def origin_of(source: OptionSource, path: KeyPath) -> str:
    """Where the value at a key path comes from."""
    for length in range(len(path), 0, -1):
        if path[:length] in source.forced:
            return f"--force_yml {source.forced[path[:length]]}"
        if path[:length] in source.lines and (length == len(path) or _is_within_value(source, path, length)):
            return f"{source.file}:{source.lines[path[:length]]}"
    return DEFAULT


def _is_within_value(source: OptionSource, path: KeyPath, length: int) -> bool:
    """Whether the key at `path[:length]` holds what lies below without naming keys, as a list does."""
    return not any(other[:length] == path[:length] and len(other) > length for other in source.lines)


def as_text(value: Any) -> str:
    """A value as one would write it into an option file, on one line."""
    if value is None:
        return "~"
    if isinstance(value, str):
        return value if value and value == value.strip() else json.dumps(value, ensure_ascii=False)
    return json.dumps(plain(value), ensure_ascii=False)


def plain(value: Any) -> Any:
    """Paths and blocks as text, lists and mappings."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


def differences(one: list[Row], other: list[Row]) -> list[tuple[str, Row | None, Row | None]]:
    """(key, row of the one, row of the other) wherever their values are not the same; None for keys that one lacks."""
    first, second = ({row.key: row for row in rows} for rows in (one, other))
    keys = dict.fromkeys([*first, *second])
    pairs = ((key, first.get(key), second.get(key)) for key in keys)
    return [(key, a, b) for key, a, b in pairs if a is None or b is None or a.value != b.value]
