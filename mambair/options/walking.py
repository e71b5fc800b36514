"""Every key of checked options, one by one, with what is known of it: value, default, registry, documentation."""

import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mambair.options.fields import Registered, Section
from mambair.options.yaml_reader import KeyPath


@dataclass(frozen=True)
class Setting:
    """One key of an option file that is no block of typed keys."""

    path: KeyPath
    value: Any
    default: Any
    """What the key is if a file leaves it out; None where it must be given."""
    section: type[Section]
    """The class that declares the key."""
    registered: str | None
    """The kind of registry that the value names an entry of, or whose components it holds; else None."""

    @property
    def key(self) -> str:
        """The path as messages write it."""
        return ".".join(self.path)

    def components(self) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
        """The blocks `{'type': ...}` that the value is, or holds in a list or by name, with their paths."""
        if self.registered is None:
            return
        if isinstance(self.value, Mapping) and isinstance(self.value.get("type"), str):
            yield self.path, self.value
        elif isinstance(self.value, Mapping):
            for name, block in self.value.items():
                yield (*self.path, name), block
        elif isinstance(self.value, Sequence) and not isinstance(self.value, str):
            for position, block in enumerate(self.value):
                yield (*self.path, str(position)), block


def walk(section: BaseModel, prefix: KeyPath = ()) -> Iterator[Setting]:
    """All settings of a section and of those within it, in the order of their declaration."""
    declared = type(section).model_fields
    for name, information in declared.items():
        value, path = getattr(section, name), (*prefix, name)
        if isinstance(value, Section):
            yield from walk(value, path)
        elif isinstance(value, dict) and value and all(isinstance(each, Section) for each in value.values()):
            for key, each in value.items():
                yield from walk(each, (*path, key))
        elif isinstance(value, list) and value and all(isinstance(each, Section) for each in value):
            for position, each in enumerate(value):
                yield from walk(each, (*path, str(position)))
        else:
            yield Setting(path, value, default_of(information), declaring(type(section), name), kind_of(information))


def default_of(information: FieldInfo) -> Any:
    """What a field is where a file leaves it out; None if it must not."""
    default = information.get_default(call_default_factory=False)
    return None if default is PydanticUndefined else default


def declaring(section: type[BaseModel], name: str) -> type[Section]:
    """The base class of a section that declares a field."""
    return next(
        base for base in reversed(section.__mro__) if issubclass(base, Section) and name in base.__annotations__
    )


def kind_of(information: FieldInfo) -> str | None:
    """The kind of registry that a field's values name entries of, if any."""
    marks = [mark for mark in information.metadata if isinstance(mark, Registered)]
    return marks[0].kind if marks else _kind_within(information.annotation)


def _kind_within(annotation: Any) -> str | None:
    for argument in typing.get_args(annotation):
        if isinstance(argument, Registered):
            return argument.kind
        found = _kind_within(argument)
        if found is not None:
            return found
    return None
