from pathlib import Path

import pytest

from mambair.errors import UserError
from mambair.options.yaml_reader import parse_value, read_yaml


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "options.yml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def message(folder: Path, content: str | bytes) -> str:
    with pytest.raises(UserError) as caught:
        read_yaml(write(folder, content))
    text = str(caught.value)
    assert "options.yml" in text and "\n" not in text
    return text


def test_lines_of_nested_keys_and_list_items(tmp_path: Path) -> None:
    document = read_yaml(write(tmp_path, "a: 1\nb:\n  c: [1, 2]\n  d:\n  - {e: 5}\n"))
    assert document.data == {"a": 1, "b": {"c": [1, 2], "d": [{"e": 5}]}}
    assert document.lines == {("a",): 1, ("b",): 2, ("b", "c"): 3, ("b", "d"): 4, ("b", "d", "0", "e"): 5}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5e3", 5000.0),
        (".5e-1", 0.05),
        ("1.5E+2", 150.0),
        ("!!float 2e5", 2e5),
        ("!!float 100", 100.0),
        ("12", 12),
        ("~", None),
        ("", None),
        ("[2, 2]", [2, 2]),
        ("{type: L1Loss}", {"type": "L1Loss"}),
        ("2024-01-31", "2024-01-31"),
        ("e5", "e5"),
        ("1e", "1e"),
        ("x2", "x2"),
    ],
)
def test_values(text: str, value: object) -> None:
    parsed = parse_value(text, "--force_yml")
    assert parsed == value and type(parsed) is type(value)


def test_byte_order_mark_and_unicode(tmp_path: Path) -> None:
    assert read_yaml(write(tmp_path, b"\xef\xbb\xbfname: \xe9\xbb\x84")).data == {"name": "黄"}


def test_merge_keys_and_aliases(tmp_path: Path) -> None:
    document = read_yaml(write(tmp_path, "base: &b {x: 1, y: 2}\nown:\n  <<: *b\n  y: 3\n"))
    assert document.data["own"] == {"x": 1, "y": 3}
    assert document.lines[("own", "y")] == 4 and document.lines[("own", "x")] == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: 1\nb: [1, 2\nc: 3", ":3: not a valid option file"),
        ("a: 1\n\tb: 2", "spaces, not tabs"),
        ("a: 1\nb: 2\na: 3", ":3: not a valid option file: key 'a' stands here a second time, first in line 1"),
        ("a:\n  b: 1\n  b: 2", ":3: "),
        (
            "a: !!python/object/apply:os.system ['true']",
            ":1: not a valid option file: could not determine a constructor",
        ),
        ("a: !!set {x}", "could not determine a constructor"),
        ("a: !!int abc", ":1: not a valid option file: 'abc' is not a valid int"),
        ("\na: !!float ''", ":2: not a valid option file: '' is not a valid float"),
        ("a: !!bool 7", "not a valid bool"),
        ("a: &x [*x]", "repeat themselves"),
        ("a: &x {b: *x}", "repeat themselves"),
        ("1: a", "expected a key in letters"),
        ("yes: a", "expected a key in letters"),
        ("[a]: 1", "expected a key in letters"),
        ("a: 1\n---\nb: 2", "single document"),
        ("a: *nowhere", "undefined alias"),
        ("", "the file is empty"),
        ("# only a comment", "the file is empty"),
        ("- a\n- b", "expected KEY: VALUE lines"),
        ("just text", "expected KEY: VALUE lines"),
        (b"\xff\xfe\x00", "not a text file in UTF-8"),
        ("a: \x07", "not a valid option file"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "9" * 10000, "not a valid int"),
        (b" " * (5 << 20), "larger than 4 MiB"),
        (
            "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)),
            "too much data",
        ),
    ],
)
def test_bad_files_are_one_line_with_the_place(tmp_path: Path, content: str | bytes, expected: str) -> None:
    assert expected in message(tmp_path, content)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yml: no such option file"):
        read_yaml(tmp_path / "nowhere.yml")
    with pytest.raises(UserError, match="cannot read the option file"):
        read_yaml(tmp_path)
    with pytest.raises(UserError, match="cannot read the option file"):
        read_yaml(tmp_path / "a\0b.yml")
