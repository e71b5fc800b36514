"""The JSON schemas in the package: in step with the options, true to them, named by every recipe."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from mambair.commands.options.components import all_components, describe_component
from mambair.commands.options.json_schema import option_schema
from mambair.commands.options.schema_files import SCHEMA_LINE, schema_file
from mambair.errors import UserError
from mambair.options import TestOptions, TrainOptions, parse_train_options
from mambair.options.walking import kind_of
from mambair.options.yaml_reader import read_yaml
from mambair.registry import LOSSES

PROJECT = Path(__file__).resolve().parents[3]
RECIPES = sorted((PROJECT / "options").glob("*/*.yml"))
PUBLISHED = sorted((PROJECT / "tests" / "options" / "published").glob("*.yml"))
LIGHT = PROJECT / "options" / "train" / "lightSR_x2_BSD400.yml"


def validator(is_training: bool) -> jsonschema.Draft7Validator:
    schema = yaml.safe_load(schema_file(is_training).read_text(encoding="utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def complaints(data: dict[str, Any]) -> list[str]:
    """Key paths that the schema of the data's kind complains about."""
    return [".".join(map(str, error.absolute_path)) for error in validator("train" in data).iter_errors(data)]


def changed(key: str, value: Any) -> dict[str, Any]:
    """A recipe with one key set."""
    data = read_yaml(LIGHT).data
    *outer, last = key.split(".")
    section = data
    for name in outer:
        section = section[name]
    section[last] = value
    return data


def test_schemas_and_reference_are_in_step() -> None:
    # In a process of its own: other tests register components of theirs.
    command = [sys.executable, str(PROJECT / "scripts" / "option_reference.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, env={**_environment()}, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(PROJECT)}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_recipes_name_their_schema_and_follow_it(path: Path) -> None:
    data = read_yaml(path).data
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(SCHEMA_LINE)
    assert (path.parent / first.removeprefix(SCHEMA_LINE)).resolve() == schema_file("train" in data)
    assert complaints(data) == []


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_files_follow_the_schema(path: Path) -> None:
    assert complaints(read_yaml(path).data) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scael", 2),
        ("scale", "two"),
        ("scale", 9),
        ("train.total_iters", 5),
        ("train.ema_decay", 1),
        ("train.optim_g", {"lr": 1e-4}),
        ("train.optim_g.lr", "fast"),
        ("train.pixel_opt", {"type": "L1Loss", "weight": 1.0}),
        ("train.scheduler", {"type": "MultiStepLR", "gamma": 0.5}),
        ("network_g.embed_dims", 60),
        ("datasets.train.dataroot", "x"),
        ("datasets.trian", {"type": "PairedImageDataset"}),
        ("datasets.val.task", "SRR"),
        ("val.metrics.psnr.crop_boarder", 2),
        ("val.tile", "whole"),
    ],
)
def test_the_schema_finds_what_the_parser_or_the_registries_find(key: str, value: Any, tmp_path: Path) -> None:
    data = changed(key, value)
    assert complaints(data), f"{key}: {value} passes the schema"
    path = tmp_path / "x.yml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    from mambair.commands.options.check import mistakes

    with pytest.raises(UserError):
        found = mistakes(parse_train_options(path))
        raise UserError("\n".join(found)) if found else AssertionError(f"{key}: {value} passes the parser")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.warmup_iter", None),
        ("train.total_iter", 5e3),
        ("num_gpu", "auto"),
        ("val.tile", "none"),
        ("train.compile", True),
        ("datasets.val", None),
        ("datasets.val_2", {"type": "SyntheticDataset", "dataroot_gt": ["a", "b"]}),
        ("train.pixel_opt", {"type": "LossOfAPlugin", "anything": 1}),
        ("network_g.window_size", 8),
    ],
)
def test_the_schema_lets_pass_what_is_allowed(key: str, value: Any) -> None:
    assert complaints(changed(key, value)) == []


def sections_within(section: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    for name, information in section.model_fields.items():
        yield name, information
        for inner in _inner(information.annotation):
            yield from sections_within(inner)


def _inner(annotation: Any) -> list[type[BaseModel]]:
    parts = [part for argument in get_args(annotation) for part in _inner(argument)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else parts


@pytest.mark.parametrize("options", [TrainOptions, TestOptions])
def test_every_component_says_which_registry_it_is_of(options: type[BaseModel]) -> None:
    blocks = {name: field for name, field in sections_within(options) if "dict[str, Any]" in repr(field)}
    assert {"network_g", "metrics"} <= blocks.keys()
    assert [name for name, field in blocks.items() if kind_of(field) is None] == []


def test_plugins_are_in_a_schema_made_when_they_are_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    class HuberLoss:
        """Squared, then linear.

        Args:
            delta: where it turns.
        """

        def __init__(self, delta: float = 0.1) -> None:
            self.delta = delta

    monkeypatch.setattr(LOSSES, "_entries", dict(LOSSES._entries))
    LOSSES.register("HuberLoss")(HuberLoss)
    entry = describe_component(LOSSES, "HuberLoss")
    assert [(keyword.name, keyword.default, keyword.description) for keyword in entry.keywords] == [
        ("delta", 0.1, "where it turns.")
    ]
    schema = jsonschema.Draft7Validator(option_schema(TrainOptions, all_components))
    assert schema.is_valid(changed("train.pixel_opt", {"type": "HuberLoss", "delta": 1.0}))
    assert not schema.is_valid(changed("train.pixel_opt", {"type": "HuberLoss", "eps": 1.0}))


def test_only_data_sets_of_plugins_have_keys_of_their_own() -> None:
    train = read_yaml(LIGHT).data["datasets"]["train"]
    assert complaints(changed("datasets.train", {**train, "type": "TheirDataset", "blur": 2})) == []
    assert complaints(changed("datasets.train", {**train, "blur": 2})) != []
