"""The JSON schema of option files, by which editors complete keys, explain them and mark mistakes.

Made of the typed sections and of what is registered. It is a little wider than the checks of `mambair options check`:
conditions between keys are left to those, and names that no registry of this installation knows (a plug-in's) pass.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mambair.commands.options.components import ComponentEntry, Keyword, registries
from mambair.options import TestOptions, TrainOptions
from mambair.options.fields import REGISTERED_KEY
from mambair.options.legacy import IGNORED, RENAMED
from mambair.registry import Registry

Schema = dict[str, Any]
Lister = Callable[[Registry], Sequence[ComponentEntry]]

DIALECT = "http://json-schema.org/draft-07/schema#"
"""What the YAML support of editors knows best."""

BOUNDS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
PHASES = {"train": "the training set", "val": "the first validation set", "test_1": "the first test set"}


def option_schema(options: type[TrainOptions] | type[TestOptions], components: Lister) -> Schema:
    """The schema of training or test files; `components` lists the entries of a registry."""
    schema = _tidy(options.model_json_schema())
    sections = schema.pop("$defs")
    for section in (schema, *sections.values()):
        _let_optional_keys_be_empty(section)
    _describe_phases(schema["properties"]["datasets"])
    for pattern, name in RENAMED.items():
        _add_old_key(schema, sections, pattern, f"another name of '{name}'")
    for pattern, reason in IGNORED.items():
        _add_old_key(schema, sections, pattern, f"has no effect: {reason}")
    kinds: dict[str, Schema] = {}
    _open_to_plugins(sections["DatasetOptions"], [entry.name for entry in components(registries()["dataset"])])
    for kind, registry in registries().items():
        entries = components(registry)
        kinds[_name_of(kind)], kinds[kind] = _names(entries), _block(kind, entries)
        for section in sections.values():
            _describe_further_keys(section, kind, entries)
    words = "Trains" if options is TrainOptions else "Tests"
    head = {"$schema": DIALECT, "title": f"mambair: an option file that {words.lower()} networks"}
    return {**head, **schema, "definitions": {**sections, **kinds}}


def _tidy(node: Any, *, are_names: bool = False) -> Any:
    """Pydantic's schema in draft 7, without titles; `are_names`: the keys of `node` are option keys or definitions."""
    if isinstance(node, list):
        return [_tidy(each) for each in node]
    if not isinstance(node, Mapping):
        return node
    if are_names:
        return {name: _tidy(each) for name, each in node.items()}
    kept = {BOUNDS.get(key, key): each for key, each in node.items() if key not in ("title", REGISTERED_KEY)}
    if kept.get("default", "") is None:
        del kept["default"]
    if kept.get("format") == "path":
        del kept["format"]
    if "$ref" in kept:
        kept["$ref"] = kept["$ref"].replace("#/$defs/", "#/definitions/")
    tidied = {
        key: each if key == "default" else _tidy(each, are_names=key in ("properties", "$defs"))
        for key, each in kept.items()
    }
    if REGISTERED_KEY in node:
        kind = {"$ref": _definition(node[REGISTERED_KEY], is_name=node.get("type") == "string")}
        return {**{key: each for key, each in tidied.items() if key in ("description", "default")}, **kind}
    if "description" in tidied:
        tidied["description"] = " ".join(tidied["description"].split())
    return tidied


def _let_optional_keys_be_empty(section: Schema) -> None:
    """`key: ~` stands for a key that is left out."""
    for name, value in section["properties"].items():
        if name in section.get("required", []):
            continue
        if "anyOf" in value:
            choices = value.pop("anyOf")
        else:
            choices = [{key: value.pop(key) for key in list(value) if key not in ("description", "default")}]
        value["anyOf"] = [each for each in choices if each != {"type": "null"}] + [{"type": "null"}]


def _describe_phases(datasets: Schema) -> None:
    """Let editors offer the names of phases, and refuse others."""
    section = {"anyOf": [datasets.pop("additionalProperties"), {"type": "null"}]}
    datasets["properties"] = {name: {"description": text, **section} for name, text in PHASES.items()}
    datasets["patternProperties"] = {r"^(val|test)(_\w+)?$": section}
    datasets["additionalProperties"] = False


def _add_old_key(schema: Schema, sections: Mapping[str, Schema], pattern: str, reason: str) -> None:
    """A key of other programs' files: accepted and marked, never offered."""
    *outer, key = pattern.split(".")
    owner = schema
    for name in outer:
        if name != "*":
            owner = sections[_reference(owner["properties"][name])]
    owner["properties"][key] = {"description": reason, "deprecationMessage": reason, "doNotSuggest": True}


def _open_to_plugins(section: Schema, names: Sequence[str]) -> None:
    """Let data sets that are not among `names`, plug-ins' own, have keys of their own."""
    del section["additionalProperties"]
    section["if"] = {"properties": {"type": {"enum": list(names)}}}
    section["then"] = {"properties": dict.fromkeys(section["properties"], True), "additionalProperties": False}


def _reference(node: Any) -> str:
    """The name of the definition that a key's schema refers to."""
    if isinstance(node, Mapping):
        if "$ref" in node:
            return node["$ref"].rpartition("/")[2]
        node = list(node.values())
    if isinstance(node, list):
        return next(filter(None, map(_reference, node)), "")
    return ""


def _definition(kind: str, is_name: bool) -> str:
    """The reference to the blocks of a kind of registry, or to its names alone."""
    return f"#/definitions/{_name_of(kind) if is_name else kind}"


def _name_of(kind: str) -> str:
    return f"{kind}-name"


def _names(entries: Sequence[ComponentEntry]) -> Schema:
    """The registered names, and any other."""
    names = [entry.name for entry in entries]
    return {"anyOf": [{"enum": names, "markdownEnumDescriptions": [e.summary for e in entries]}, {"type": "string"}]}


def _block(kind: str, entries: Sequence[ComponentEntry]) -> Schema:
    """A block with `type` and the keywords that go with it."""
    names = {"$ref": _definition(kind, is_name=True)}
    known = [_keywords_if(entry, is_closed=not entry.takes_more) for entry in entries]
    return {"type": "object", "required": ["type"], "properties": {"type": names}, "allOf": known}


def _describe_further_keys(section: Schema, kind: str, entries: Sequence[ComponentEntry]) -> None:
    """Let a section that takes a component's keywords beside its own keys know them."""
    own = section["properties"].get("type", {})
    is_open = section.get("additionalProperties") is True
    if is_open and own.get("$ref") == _definition(kind, is_name=True) and any(entry.keywords for entry in entries):
        section["allOf"] = [_keywords_if(entry, is_closed=False) for entry in entries]


def _keywords_if(entry: ComponentEntry, is_closed: bool) -> Schema:
    """The keywords of a component where a block is of its type; no others where that is closed."""
    then: Schema = {
        "properties": {"type": True, **_keyword_schemas(entry)},
        "required": [keyword.name for keyword in entry.keywords if keyword.is_required],
    }
    if is_closed:
        then["additionalProperties"] = False
    return {"if": {"properties": {"type": {"const": entry.name}}}, "then": then}


def _keyword_schemas(entry: ComponentEntry) -> Schema:
    ignored = {"description": "has no effect", "deprecationMessage": "has no effect", "doNotSuggest": True}
    return {
        **dict.fromkeys(sorted(entry.ignored), ignored),
        **{keyword.name: _keyword_schema(keyword) for keyword in entry.keywords},
    }


def _keyword_schema(keyword: Keyword) -> Schema:
    schema = _tidy(keyword.schema)
    if keyword.description:
        schema["description"] = keyword.description
    if not keyword.is_required and keyword.default is not None:
        schema["default"] = list(keyword.default) if isinstance(keyword.default, tuple) else keyword.default
    return schema
