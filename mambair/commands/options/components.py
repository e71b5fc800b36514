"""What can be written after `type:`: every registered component, with its keywords and what they mean."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError

import mambair.data.loaders
import mambair.losses
import mambair.metrics
import mambair.models.gan_model
import mambair.models.real_sr_model  # noqa: F401  (all of these register what they hold)
from mambair.registry import (
    ARCHS,
    AUGMENTATIONS,
    DATASETS,
    DEGRADATIONS,
    LOSSES,
    METRICS,
    MODELS,
    OPTIMIZERS,
    SCHEDULERS,
    Registry,
    type_hints,
)

PROGRAM_ARGUMENTS = {"self", "groups", "params", "optimizer", "image", "reference", "img", "img2"}
"""Arguments of components that the program passes, and no option file."""

DESCRIBED_BY_SECTIONS = ("dataset", "model")
"""Kinds whose keys are typed sections of the option file, not keywords of their own."""

_SECTION = re.compile(r"^(?:Args|Raises|Attributes|Returns):$", re.MULTILINE)
_ARGUMENT = re.compile(r"^    (?P<names>\w+(?:, \w+)*): (?P<text>.*)$")


@dataclass(frozen=True)
class Keyword:
    """One keyword of a component."""

    name: str
    type: str
    """As the signature is annotated; empty where it is not."""
    schema: Mapping[str, Any]
    """JSON schema of its values; empty for anything."""
    default: Any
    is_required: bool
    description: str


@dataclass(frozen=True)
class ComponentEntry:
    """A registered name."""

    kind: str
    name: str
    summary: str
    """The first paragraph of its docstring."""
    keywords: tuple[Keyword, ...]
    ignored: frozenset[str]
    """Keywords of published files that have no effect."""
    takes_more: bool
    """Whether other keywords are accepted too."""
    text: str
    """Its docstring without the list of arguments."""


def registries() -> dict[str, Registry]:
    """All registries by kind, filled."""
    found: list[Registry] = [ARCHS, DATASETS, LOSSES, METRICS, MODELS, OPTIMIZERS, SCHEDULERS, AUGMENTATIONS]
    found.append(DEGRADATIONS)
    return {registry.kind: registry for registry in found}


def describe_component(registry: Registry, name: str) -> ComponentEntry:
    """What a registered class or function takes, and says of itself."""
    kind, entry = registry.kind, registry.get(name)
    parameters = inspect.signature(entry).parameters
    hints = type_hints(entry)
    notes = documented_arguments(entry)
    keywords = []
    for key, parameter in parameters.items():
        is_variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if is_variadic or key in PROGRAM_ARGUMENTS or kind in DESCRIBED_BY_SECTIONS:
            continue
        is_required = parameter.default is parameter.empty
        keywords.append(
            Keyword(
                key,
                type_name(hints.get(key)),
                value_schema(hints.get(key)),
                None if is_required else parameter.default,
                is_required,
                notes.get(key, ""),
            )
        )
    takes_more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    text = own_text(entry)
    summary = " ".join(text.partition("\n\n")[0].split())
    return ComponentEntry(kind, name, summary, tuple(keywords), registry.ignored_keys(name), takes_more, text)


def shipped_components(registry: Registry) -> list[ComponentEntry]:
    """The entries that every installation has: not those that other packages bring."""
    return [entry for entry in all_components(registry) if is_shipped(registry.get(entry.name))]


def all_components(registry: Registry) -> list[ComponentEntry]:
    """Every entry that is registered now, plug-ins' included."""
    return [describe_component(registry, name) for name in registry.names()]


def is_shipped(entry: Callable) -> bool:
    """Whether a class or function is the package's own, and not made from another one's when it was asked for."""
    return entry.__module__.startswith("mambair.") and "<locals>" not in entry.__qualname__


def type_name(hint: Any) -> str:
    """An annotation as readers know it: 'float', 'Sequence[int]', 'int | None'."""
    if hint is None:
        return ""
    text = inspect.formatannotation(hint).replace("collections.abc.", "").replace("typing.", "")
    return text.replace("pathlib.", "").replace("NoneType", "None")


def value_schema(hint: Any) -> dict[str, Any]:
    """JSON schema of an annotation; empty, which allows everything, for none and for types that YAML cannot hold."""
    if hint is None:
        return {}
    try:
        return TypeAdapter(hint).json_schema()
    except (PydanticSchemaGenerationError, ValueError):  # PydanticInvalidForJsonSchema is a ValueError
        return {}


def own_text(entry: Callable) -> str:
    """A docstring up to its list of arguments or errors; empty if there is none of its own."""
    text = inspect.cleandoc(entry.__doc__) if entry.__doc__ else ""
    return _SECTION.split(text, maxsplit=1)[0].strip()


def documented_arguments(entry: Callable) -> dict[str, str]:
    """What the Args part of a docstring says of each argument; a class inherits its bases' words."""
    found: dict[str, str] = {}
    for owner in reversed(entry.__mro__) if inspect.isclass(entry) else [entry]:
        if owner.__module__.startswith("torch."):
            continue
        for names, text in _argument_lines(inspect.cleandoc(owner.__doc__) if owner.__doc__ else ""):
            found.update(dict.fromkeys(names, text))
    return found


def _argument_lines(docstring: str) -> Iterator[tuple[list[str], str]]:
    """(names, text) of each entry below `Args:`, continued lines joined."""
    _, found, below = docstring.partition("Args:\n")
    if not found:
        return
    names: list[str] = []
    text: list[str] = []
    for line in below.splitlines():
        if line and not line.startswith("    "):
            break
        if match := _ARGUMENT.match(line):
            if names:
                yield names, " ".join(text)
            names, text = match["names"].split(", "), [match["text"]]
        elif line.strip():
            text.append(line.strip())
    if names:
        yield names, " ".join(text)
