"""The house keeps its floors: a module imports from its own floor or below, never from above, never in a circle."""

import ast
import difflib
import functools
import itertools
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mambair"

# Module (or package) name directly under mambair -> floor. Everything not named here is a command.
FLOORS = {
    "errors": 0,
    "contracts": 1,
    "registry": 1,
    "runtime": 1,
    "ops": 2,
    "options": 2,
    "imaging": 2,
    "archs": 3,
    "metrics": 3,
    "data": 3,
    "weights": 4,
    "losses": 5,
    "inference": 5,
    "models": 6,
    "engine": 7,
    "analysis": 7,
}
COMMANDS = 8
MAX_ENTRY_LINES = 50
MAX_LINES = 400

LAZY = {
    ("mambair", "mambair.inference.restorer"): "load_model, known at the top, is imported when it is asked for",
    ("mambair.archs", "mambair.weights.loading"): "names of weight files are known here too, imported when asked for",
    ("mambair.archs", "mambair.weights.state_files"): "the same",
    ("mambair.archs.hub", "mambair.weights.loading"): "huggingface_hub calls a network to save and load itself",
    ("mambair.archs.build", "mambair.weights.other_networks"): "`type: spandrel` names a file; it registers the type",
}
"""Imports inside functions that go up, and why."""

ROOMS = {"mambair.engine.checkpoints": 0, "mambair.engine.evaluate": 1, "mambair.engine.train": 2}
"""The rooms of the engine, from the ground up."""


def module_name(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


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
            names = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found.update(names[name] if names[name] in SOURCES else node.module or "" for name in names)
    return {name for name in found if name.split(".")[0] == "mambair"}


@functools.cache
def arrows() -> dict[str, set[str]]:
    """Module -> the modules that it imports, but for what LAZY allows."""
    return {
        module: {name for name in imported_modules(path) if (module, name) not in LAZY}
        for module, path in SOURCES.items()
    }


@pytest.mark.parametrize("module", SOURCES)
def test_imports_go_down_only(module: str) -> None:
    if module == "mambair":
        return  # the door of the house leads to every floor
    too_high = {name for name in arrows()[module] if floor_of(name) > floor_of(module)}
    assert not too_high, f"{module} (floor {floor_of(module)}) imports from above: {sorted(too_high)}"


def test_no_module_imports_itself_round_a_circle() -> None:
    graph = networkx.DiGraph((module, name) for module, names in arrows().items() for name in names)
    circles = [sorted(circle) for circle in networkx.strongly_connected_components(graph) if len(circle) > 1]
    assert circles == []


def room_of(module: str) -> str | None:
    return next((room for room in ROOMS if module == room or module.startswith(room + ".")), None)


def test_rooms_of_the_engine_have_an_order() -> None:
    upward = [
        (module, name)
        for module, names in arrows().items()
        for name in names
        if room_of(module) and room_of(name) and ROOMS[room_of(name)] > ROOMS[room_of(module)]
    ]
    assert upward == []


def test_lazy_imports_are_all_in_use() -> None:
    used = {(module, name) for module, path in SOURCES.items() for name in imported_modules(path)}
    assert set(LAZY) <= used


@pytest.mark.parametrize("path", SOURCES.values(), ids=SOURCES)
def test_rooms_are_small(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    is_entry = path.parent == PACKAGE and path.name in {"train.py", "test.py", "restore.py"}
    assert lines <= (MAX_ENTRY_LINES if is_entry else MAX_LINES)


def differ_in_ending_only(one: str, other: str) -> bool:
    """Whether two names must be told apart by their last letters: trainer and training, sample and samples."""
    shorter = min(len(one), len(other))
    same = difflib.SequenceMatcher(None, one, other).find_longest_match(0, len(one), 0, len(other))
    return same.a == same.b == 0 and same.size >= max(4, shorter - 2) and max(len(one), len(other)) - same.size <= 3


def test_no_two_names_differ_in_an_ending_only() -> None:
    names = [module.removeprefix("mambair.") for module in SOURCES if module != "mambair"]
    alike = [
        pair
        for pair in itertools.combinations(names, 2)
        if differ_in_ending_only(*(name.rpartition(".")[2] for name in pair))
        and pair[0].rpartition(".")[0] == pair[1].rpartition(".")[0]
    ]
    assert alike == []


def test_tests_mirror_the_folders() -> None:
    tested = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    strange = [str(folder) for folder in sorted(tested) if not (PACKAGE / folder).is_dir()]
    assert strange == ["architecture", "faults", "scripts"]
    wings = [path for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.py"))]
    assert [wing.name for wing in wings if not (ROOT / "tests" / wing.name).is_dir()] == []


def test_the_checks_see_what_they_are_for(tmp_path: Path) -> None:
    source = tmp_path / "blocks.py"
    source.write_text("def f():\n    from mambair.engine.train import loop\n", encoding="utf-8")
    assert {floor_of(name) for name in imported_modules(source)} == {FLOORS["engine"]}
    assert differ_in_ending_only("trainer", "training")
    assert not differ_in_ending_only("triton_forward", "triton_backward")
