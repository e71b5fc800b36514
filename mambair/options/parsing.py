"""Option files and `--force_yml` arguments -> checked options, and back to YAML.

Paths: an option file is its user's own, so data roots, weight files and `path.root` may point anywhere (`../data`,
`~/weights`, `/mnt/data`); relative ones start at the working directory. What is a *name* cannot lead out of the
folder it belongs to: `name`, data-set names and `val.suffix` are plain folder or file names, and `filename_tmpl` is a
file name. Entries of meta-info files and LMDB keys are held to their roots where the data sets read them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from mambair.errors import UserError
from mambair.options.degradation_schema import DegradationFields, KernelFields
from mambair.options.explain import blamed_keys, explain
from mambair.options.fields import describe
from mambair.options.legacy import modernise
from mambair.options.plugins import load_installed_plugins, load_plugins, load_plugins_of
from mambair.options.schema import TestOptions, TrainOptions
from mambair.options.source import OptionSource
from mambair.options.yaml_reader import KeyPath, parse_value, read_yaml

Options = TypeVar("Options", TrainOptions, TestOptions)

_ROUNDS = 5
"""How often keys are taken out until the rest of a mistaken file is a file; a cut may show what it hid."""

DEBUG_PREFIX = "debug_"
DEBUG_SETTINGS: dict[KeyPath, int] = {
    ("logger", "print_freq"): 1,
    ("logger", "save_checkpoint_freq"): 8,
    ("val", "val_freq"): 8,
}
"""What --debug changes in a training file, besides the name: everything happens within the first iterations."""


class OptionMistakes(UserError):
    """What is wrong with the sections of a file, one line each; `rest` is None or the options without those keys.

    The components of the rest can still be checked, so that all mistakes are told at once.
    """

    def __init__(self, message: str, rest: TrainOptions | TestOptions | None) -> None:
        super().__init__(message)
        self.rest = rest


def parse_train_options(
    path: str | Path, *, force_yml: Sequence[str] = (), debug: bool = False, plugins: Sequence[str] = ()
) -> TrainOptions:
    """Read and check a training file, after loading the plug-ins that it names, those installed, and `plugins`.

    `force_yml` are `train:total_iter=100` arguments, their values in YAML; `debug` prefixes the name with `debug_` and
    prints, validates and saves often; `plugins` are relative to the working directory. Raises UserError with file,
    line, key and remedy, one line per mistake.
    """
    return _parse(Path(path), TrainOptions, force_yml, debug, plugins)


def parse_test_options(
    path: str | Path, *, force_yml: Sequence[str] = (), debug: bool = False, plugins: Sequence[str] = ()
) -> TestOptions:
    """Read and check a test file; arguments and errors as for `parse_train_options`."""
    return _parse(Path(path), TestOptions, force_yml, debug, plugins)


def parse_options(path: str | Path, *, force_yml: Sequence[str] = ()) -> TrainOptions | TestOptions:
    """Read and check a file of either kind: a training file is one that has a `train` section."""
    parse = parse_train_options if "train" in read_yaml(Path(path)).data else parse_test_options
    return parse(path, force_yml=force_yml)


def dump_options(options: TrainOptions | TestOptions) -> str:
    """The options in effect as YAML that parses to the same options, defaults included.

    The keys of the real-world degradation are left out unless the file set one of them.
    """
    data = options.model_dump(mode="json", exclude_none=True)
    _drop_unless_set(data, options, DegradationFields)
    for phase, section in options.datasets.items():
        _drop_unless_set(data["datasets"][phase], section, KernelFields)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _drop_unless_set(data: dict[str, Any], section: BaseModel, group: type[BaseModel]) -> None:
    if not section.model_fields_set & group.model_fields.keys():
        for key in group.model_fields:
            data.pop(key, None)


def _parse(path: Path, schema: type[Options], force_yml: Sequence[str], debug: bool, plugins: Sequence[str]) -> Options:
    document = read_yaml(path)
    data, lines = document.data, dict(document.lines)
    forced: dict[KeyPath, str] = {}
    if debug:
        data = _for_debugging(data, is_training=schema is TrainOptions)
    for argument in force_yml:
        key, value = _parse_force(argument)
        if value is None:
            _check_left_out(data, key, argument)
        data = _with(data, key, value, f"--force_yml {argument}")
        forced[key] = argument
    modern, ignored = modernise(data, lines)
    warnings = load_installed_plugins() + [f"{path}: {warning}" for warning in ignored]
    source = OptionSource(str(path), lines, forced, tuple(warnings))
    data = _with_plugins(modern, plugins, source, debug)
    if schema is TestOptions and "train" in data:
        raise UserError(
            f"{source.where('train')}: this is a training file; test files (options/test) have no such section"
        )
    try:
        options = schema.model_validate(data)
    except ValidationError as error:
        rest = _without_mistakes(data, error, schema)
        raise OptionMistakes(explain(error, schema, source), rest and rest.with_source(source)) from None
    except UnicodeEncodeError as error:
        character = error.object[error.start : error.end]
        raise UserError(f"{path}: {character!a} is half of a character; write the whole character") from None
    return options.with_source(source)


def _without_mistakes(data: dict[str, Any], error: ValidationError, schema: type[Options]) -> Options | None:
    """The options of a file without the keys that are mistaken; None if it cannot do without them."""
    for _ in range(_ROUNDS):
        for path in blamed_keys(error):
            data = _without(data, path)
        try:
            return schema.model_validate(data)
        except ValidationError as further:
            error = further
        except UnicodeEncodeError:
            break
    return None


def _without(block: dict[str, Any], path: KeyPath) -> dict[str, Any]:
    """A copy of `block` without the key at `path`, or without the innermost one around it that is there."""
    if not path:
        return block
    key, *inner = path
    value = block.get(key)
    if isinstance(value, dict) and inner and inner[0] in value:
        return {**block, key: _without(value, tuple(inner))}
    return {name: each for name, each in block.items() if name != key}


def _with_plugins(data: dict[str, Any], more: Sequence[str], source: OptionSource, debug: bool) -> dict[str, Any]:
    """Load a file's plug-ins and `more`; `data` with what loads them from anywhere in the place of relative paths."""
    loaded = load_plugins_of(data, Path(source.file), source.where("plugins"), show_traceback=debug)
    loaded += load_plugins(more, Path.cwd(), "--plugin", show_traceback=debug)
    return {**data, "plugins": list(dict.fromkeys(plugin.spec for plugin in loaded))} if loaded else data


def _for_debugging(data: dict[str, Any], is_training: bool) -> dict[str, Any]:
    name = data.get("name")
    if isinstance(name, str) and not name.startswith(DEBUG_PREFIX):
        data = {**data, "name": DEBUG_PREFIX + name}
    if is_training:
        for key, value in DEBUG_SETTINGS.items():
            if key[0] == "logger" or data.get(key[0]):
                data = _with(data, key, value, "--debug")
    return data


def _parse_force(argument: str) -> tuple[KeyPath, Any]:
    """('train', 'total_iter'), 100 from 'train:total_iter=100'."""
    key, separator, text = argument.partition("=")
    path = tuple(part.strip() for part in key.split(":"))
    if not separator or not all(path):
        raise UserError(f"--force_yml {argument}: expected KEY:SUBKEY=VALUE, as train:total_iter=100")
    return path, parse_value(text, f"--force_yml {argument}")


def _check_left_out(data: dict[str, Any], path: KeyPath, argument: str) -> None:
    """Raise UserError where a data set is to be left out that the file does not have."""
    datasets = data.get("datasets")
    if len(path) == 2 and path[0] == "datasets" and isinstance(datasets, dict) and path[1] not in datasets:
        raise UserError(f"--force_yml {argument}: the file has no '{path[1]}'; it has {', '.join(datasets)}")


def _with(data: dict[str, Any], path: KeyPath, value: Any, source: str) -> dict[str, Any]:
    """A copy of `data` with the value at `path` replaced; blocks on the way are made where missing."""
    if len(path) == 1:
        return {**data, path[0]: value}
    inner = data.get(path[0])
    if inner is not None and not isinstance(inner, dict):
        raise UserError(f"{source}: '{path[0]}' is {describe(inner)}, not a block of keys")
    return {**data, path[0]: _with(inner or {}, path[1:], value, source)}
