"""The picture of the house in docs/architecture.md shows what the code imports."""

import itertools
import re
from collections.abc import Iterator

import networkx
import pytest

from tests.architecture.test_import_layers import COMMANDS, ROOT, arrows, floor_of

PAGE = ROOT / "docs" / "architecture.md"
GROUND = {"runtime", "registry", "contracts", "errors"}
"""One box of the picture."""


def wing_of(module: str) -> str:
    """The box that a module lies in."""
    if floor_of(module) == COMMANDS:
        return "commands"
    wing = module.split(".")[1]
    return "runtime" if wing in GROUND else wing


def drawn() -> networkx.DiGraph:
    """The boxes and arrows of the picture."""
    picture = re.search(r"```mermaid\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    graph = networkx.DiGraph()
    graph.add_nodes_from(re.findall(r"^ +(\w+)\[", picture, re.MULTILINE))
    for line in (line for line in picture.splitlines() if "-->" in line):
        ends = [part.strip().split(" & ") for part in line.split("-->")]
        for sources, targets in itertools.pairwise(ends):
            graph.add_edges_from(itertools.product(sources, targets))
    return graph


def imported() -> Iterator[tuple[str, str]]:
    """The arrows between wings that the code has."""
    for module, names in arrows().items():
        for name in names:
            inside = module.count(".") and name.count(".")
            if inside and wing_of(module) != wing_of(name):
                yield wing_of(module), wing_of(name)


def test_every_wing_is_drawn() -> None:
    assert set(drawn()) == {wing for ends in imported() for wing in ends}


@pytest.mark.parametrize("ends", sorted(set(imported())), ids="-".join)
def test_every_import_follows_arrows(ends: tuple[str, str]) -> None:
    assert networkx.has_path(drawn(), *ends)


def test_every_arrow_is_an_import() -> None:
    assert set(drawn().edges) - set(imported()) == set()
