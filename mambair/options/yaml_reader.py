"""YAML as option files use it: plain data only, with the line of every key, and duplicate keys refused."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mambair.errors import UserError

KeyPath = tuple[str, ...]

MAX_BYTES = 4 << 20
MAX_NODES = 200_000  # aliases of aliases describe far more data than the file holds

_TAG = "tag:yaml.org,2002:"
ON = "on"
"""A key of losses, which YAML 1.1 takes for true."""


@dataclass(frozen=True)
class YamlDocument:
    """The mapping a YAML file describes, and the line of each of its keys (from 1)."""

    data: dict[str, Any]
    lines: dict[KeyPath, int]


def _guarded(tag: str) -> Callable[[yaml.SafeLoader, yaml.Node], Any]:
    """SafeLoader's constructor for `tag`, with PyYAML's bare Python errors (`!!int abc`) given a place."""
    construct = yaml.SafeLoader.yaml_constructors[_TAG + tag]

    def constructor(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
        try:
            return construct(loader, node)
        except (ValueError, KeyError, IndexError):
            problem = f"{str(node.value)[:40]!r} is not a valid {tag}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    return constructor


class _OptionLoader(yaml.SafeLoader):
    """SafeLoader reduced to plain data: no dates, sets or binaries; `1e-4` and `5e3` are numbers as in YAML 1.2."""

    yaml_constructors = {
        **{_TAG + tag: yaml.SafeLoader.yaml_constructors[_TAG + tag] for tag in ("null", "str", "seq", "map")},
        **{_TAG + tag: _guarded(tag) for tag in ("bool", "int", "float")},
        None: yaml.SafeLoader.yaml_constructors[None],
    }
    yaml_implicit_resolvers = {
        first: [resolver for resolver in resolvers if resolver[0] != _TAG + "timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _whole(loader: yaml.SafeLoader, node: yaml.Node) -> int:
    """A whole number as in YAML 1.2: 010 is ten; what YAML 1.1 calls sexagesimal (1:30) is none."""
    text = str(node.value).replace("_", "")
    try:
        return int(text, 10 if re.fullmatch(r"[-+]?[0-9]+", text) else 0)
    except ValueError:
        problem = f"{str(node.value)[:40]!r} is not a valid int"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


_OptionLoader.add_constructor(_TAG + "int", _whole)
_OptionLoader.add_implicit_resolver(
    _TAG + "float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@dataclass
class _Indexer:
    """Walks a node tree as its aliases spell it out: line of every key, duplicates, runaway aliases."""

    lines: dict[KeyPath, int] = field(default_factory=dict)
    visited: int = 0
    open_nodes: list[yaml.Node] = field(default_factory=list)

    def visit(self, node: yaml.Node, path: KeyPath) -> None:
        self.visited += 1
        if self.visited > MAX_NODES or any(node is parent for parent in self.open_nodes):
            problem = "aliases (*name) that repeat themselves or describe too much data"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        self.open_nodes.append(node)
        if isinstance(node, yaml.MappingNode):
            self._visit_mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            for position, child in enumerate(node.value):
                self.visit(child, (*path, str(position)))
        self.open_nodes.pop()

    def _visit_mapping(self, node: yaml.MappingNode, path: KeyPath) -> None:
        first_lines: dict[str, int] = {}
        merged = []
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _TAG + "merge":
                merged.append(value_node)
                continue
            if key_node.value == ON:
                key_node.tag = _TAG + "str"
            if key_node.tag != _TAG + "str":
                problem = "expected a key in letters (put it in quotes if it is one)"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            key = key_node.value
            if key in first_lines:
                problem = f"key '{key}' stands here a second time, first in line {first_lines[key]}"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            first_lines[key] = line
            inner = (*path, key)
            self.lines[inner] = line
            self.visit(value_node, inner)
        for value_node in merged:  # `<<: *defaults`: explicit keys win
            own = dict(self.lines)
            for mapping in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                self.visit(mapping, path)
            self.lines.update(own)


def read_yaml(path: Path) -> YamlDocument:
    """Read an option file.

    Raises UserError, with file and line, for a file that is missing, unreadable, too large, not UTF-8, not YAML,
    not a mapping, or that has a key twice, a key that is not text, or aliases that loop.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{path}: no such option file; recipes are in options/train and options/test") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot read the option file: {reason}") from None
    if len(content) > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES >> 20} MiB; this is no option file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 (byte {error.start})") from None
    data, lines = _load(text, str(path))
    if not isinstance(data, dict):
        raise UserError(f"{path}: {'the file is empty' if data is None else 'expected KEY: VALUE lines'}")
    return YamlDocument(data, lines)


def parse_value(text: str, source: str) -> Any:
    """The plain data that a piece of YAML such as `100`, `1e-4`, `[2, 2]` or `~` stands for; `source` names it."""
    return _load(text, source)[0]


def _load(text: str, source: str) -> tuple[Any, dict[KeyPath, int]]:
    try:
        loader = _OptionLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        indexer = _Indexer()
        indexer.visit(node, ())
        return loader.construct_document(node), indexer.lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}" if mark else source
        problem = " ".join(part for part in (error.context, error.problem) if part)
        hint = "; indent with spaces, not tabs" if "'\\t'" in problem else ""
        raise UserError(f"{place}: not a valid option file: {problem}{hint}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{source}: not a valid option file: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{source}: not a valid option file: nested too deeply") from None
