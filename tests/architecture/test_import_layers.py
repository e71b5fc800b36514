"""The house keeps its floors: a module imports from its own floor or below, never from above."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mambair"

# Module (or package) name directly under mambair -> floor. Everything not named here is a command: floor 6.
FLOORS = {
    "errors": 0,
    "registry": 1,
    "ops": 1,
    "options": 1,
    "runtime": 1,
    "imaging": 1,
    "archs": 2,
    "metrics": 2,
    "data": 2,
    "losses": 3,
    "models": 4,
    "engine": 5,
    "analysis": 5,
}
COMMANDS = 6
MAX_ENTRY_LINES = 50
MAX_LINES = 400


def floor_of(module: str) -> int:
    """Floor of a dotted module name such as 'mambair.archs.blocks'."""
    parts = module.split(".")
    return 0 if len(parts) == 1 else FLOORS.get(parts[1], COMMANDS)


def imported_modules(path: Path) -> set[str]:
    """Dotted names of the mambair modules that a file imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "mambair":
                found.update(f"mambair.{alias.name}" for alias in node.names)
            else:
                found.add(node.module or "")
    return {name for name in found if name.split(".")[0] == "mambair"}


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    too_high = {name for name in imported_modules(path) if floor_of(name) > floor_of(module)}
    assert not too_high, f"{module} (floor {floor_of(module)}) imports from above: {sorted(too_high)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_are_small(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    is_entry = path.parent == PACKAGE and path.name in {"train.py", "test.py", "restore.py"}
    assert lines <= (MAX_ENTRY_LINES if is_entry else MAX_LINES)


def test_the_check_sees_an_upward_import(tmp_path: Path) -> None:
    source = tmp_path / "blocks.py"
    source.write_text("def f():\n    from mambair.engine import trainer\n", encoding="utf-8")
    assert {floor_of(name) for name in imported_modules(source)} == {5}
