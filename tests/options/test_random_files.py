"""Whatever an option file holds, the answer is options or a message; never a traceback, never a hang."""

import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mambair.errors import UserError
from mambair.options import TrainOptions, dump_options, parse_test_options, parse_train_options

RECIPES = Path(__file__).resolve().parents[2] / "options" / "train"
BASES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(RECIPES.glob("*.yml"))}
KEYS = sorted(
    {key for base in BASES.values() for key in base} | set(TrainOptions.model_fields) | {"trian", "", "scale "}
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["auto", "1e-4", "5e3", "../x", "{}", "~", "~nobody/x", "published", "\ud800", "\0", 10**400]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.sampled_from(KEYS), inner, max_size=3)
    ),
    max_leaves=6,
)


def answer(content: bytes, parse: Any) -> None:
    """Parse a file of this content: options that dump and read back, or a message that names the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.yml"
        path.write_bytes(content)
        try:
            options = parse(path)
        except UserError as error:
            assert "random.yml" in str(error)
            return
        again = Path(folder) / "again.yml"
        again.write_text(dump_options(options), encoding="utf-8")
        assert parse(again).model_dump() == options.model_dump()


def leaf_paths(data: Any, path: tuple = ()) -> list[tuple]:
    if not isinstance(data, dict):
        return [path]
    return [path, *(found for key, value in data.items() for found in leaf_paths(value, (*path, key)))]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_recipes_with_one_value_replaced(data: st.DataObject) -> None:
    base = BASES[data.draw(st.sampled_from(sorted(BASES)))]
    path = data.draw(st.sampled_from([path for path in leaf_paths(base) if path]))
    copy = yaml.safe_load(yaml.safe_dump(base))
    section = copy
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = data.draw(VALUES)
    try:
        content = yaml.safe_dump(copy, allow_unicode=True).encode()
    except (UnicodeEncodeError, ValueError):  # what YAML or Python cannot write down (lone surrogates, huge numbers)
        return
    answer(content, parse_train_options)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8))
def test_random_mappings(data: dict) -> None:
    try:
        content = yaml.safe_dump(data).encode()
    except (UnicodeEncodeError, ValueError):
        return
    answer(content, parse_train_options)
    answer(content, parse_test_options)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab:-[]{}&*!#|>'\"\n \t0~<?,%@`", max_size=40) | st.binary(max_size=40))
def test_random_text(content: str | bytes) -> None:
    answer(content.encode() if isinstance(content, str) else content, parse_train_options)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30))
def test_random_arguments(argument: str) -> None:
    try:
        parse_train_options(RECIPES / "SR_x2.yml", force_yml=[argument])
    except UserError as error:
        assert "--force_yml" in str(error) or "SR_x2.yml" in str(error)
