"""Pydantic's validation errors, retold as one line each: place, key, what is wrong, what to do."""

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mambair.options.fields import ConflictError, describe
from mambair.options.source import OptionSource
from mambair.options.yaml_reader import KeyPath
from mambair.registry import did_you_mean

_BOUNDS = {"greater_than_equal": "of at least", "less_than_equal": "of at most"}
_STRICT_BOUNDS = {"greater_than": "above", "less_than": "below"}


def explain(error: ValidationError, schema: type[BaseModel], source: OptionSource) -> str:
    """One line per mistake, in the order of the file."""
    mistakes = [_mistake(detail, schema) for detail in error.errors(include_url=False)]
    mistakes.sort(key=lambda mistake: source.line(mistake[0]))
    return "\n".join(dict.fromkeys(f"{source.where(key)}: {message}" for key, message in mistakes))


def blamed_keys(error: ValidationError) -> Iterator[KeyPath]:
    """The key paths that the mistakes are blamed on; of one that is missing, its own."""
    for detail in error.errors(include_url=False):
        yield tuple(_blamed(detail))


def _blamed(detail: ErrorDetails) -> list[str]:
    path = [str(part) for part in detail["loc"]]
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, ConflictError) and cause.key:
        path += cause.key.split(".")
    return path


def _mistake(detail: ErrorDetails, schema: type[BaseModel]) -> tuple[str, str]:
    """The key path to name, and what is wrong with it."""
    path = _blamed(detail)
    if detail["type"] == "missing":
        return ".".join(path[:-1]), f"key '{path[-1]}' is missing"
    if detail["type"] == "extra_forbidden":
        return ".".join(path), f"unknown key{_suggestion(path, schema)}"
    return ".".join(path), _reason(detail)


def _reason(detail: ErrorDetails) -> str:
    kind, context, given = detail["type"], detail.get("ctx", {}), describe(detail["input"])
    if kind == "value_error":
        return str(context["error"])
    if kind in _BOUNDS or kind in _STRICT_BOUNDS:
        words = {**_BOUNDS, **_STRICT_BOUNDS}[kind]
        limit = next(value for key, value in context.items() if key in ("ge", "gt", "le", "lt"))
        return f"expected a number {words} {limit:g}, got {given}"
    if kind == "literal_error":
        expected = str(context["expected"])
        near = did_you_mean(str(detail["input"]), expected.replace("'", "").replace(" or ", ", ").split(", "))
        return f"expected {expected}, got {given}{near}"
    if kind in ("model_type", "dict_type"):
        return f"expected a block of keys, got {given}"
    if kind == "list_type":
        return f"expected a list, got {given}"
    message = detail["msg"]
    return f"{message[0].lower()}{message[1:]}, got {given}"


def _suggestion(path: list[str], schema: type[BaseModel]) -> str:
    """A near key of the same section, or the section that the key does belong to."""
    section = _section_at(schema, path[:-1])
    near = did_you_mean(path[-1], section.model_fields)
    if near:
        return near
    homes = [home for home in _homes(schema, path[-1]) if home]
    return f"; it belongs into '{homes[0]}'" if homes else ""


def _section_at(schema: type[BaseModel], path: list[str]) -> type[BaseModel]:
    """The section class found at a key path. Only sections report unknown keys, so there is always one."""
    for name in path:  # a data set's own name is no field: datasets.train stays with DatasetOptions
        schema = _child_sections(schema).get(name, schema)
    return schema


def _child_sections(schema: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Key -> section class, for the fields that hold a section or a mapping of sections."""
    children = {}
    for name, information in schema.model_fields.items():
        for candidate in _types_within(information.annotation):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                children[name] = candidate
    return children


def _types_within(annotation: Any) -> list[Any]:
    inner = [found for argument in typing.get_args(annotation) for found in _types_within(argument)]
    return inner or [annotation]


def _homes(schema: type[BaseModel], key: str, prefix: str = "") -> list[str]:
    """Paths of all sections that have a field called `key`."""
    found = [prefix] if key in schema.model_fields else []
    for name, child in _child_sections(schema).items():
        path = ".".join(part for part in (prefix, name) if part)
        found += _homes(child, key, f"{path}.train" if name == "datasets" else path)
    return found
