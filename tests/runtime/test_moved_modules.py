"""What could be imported before the house got wings still can be."""

import importlib
import subprocess
import sys

import pytest

from mambair.runtime.moved_modules import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_gives_the_very_module(old: str) -> None:
    sys.modules.pop(f"mambair.{old}", None)
    with pytest.warns(DeprecationWarning, match=MOVED[old].replace(".", r"\.")):
        module = importlib.import_module(f"mambair.{old}")
    new = importlib.import_module(f"mambair.{MOVED[old]}")
    assert module is new
    assert new.__spec__.name == new.__name__ == f"mambair.{MOVED[old]}"


def test_functions_that_are_replaced_under_the_old_name_are_replaced() -> None:
    lines = [
        "import mambair.models.restorer as module",
        "from mambair.commands.video import restore_video",
        "from mambair.data_tools import main",
        "import mambair.inference.restorer",
        "module.load_model = 7",
        "assert mambair.inference.restorer.load_model == 7 and callable(restore_video) and callable(main)",
    ]
    subprocess.run([sys.executable, "-W", "ignore", "-c", "\n".join(lines)], check=True)


def test_names_that_never_were_are_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("mambair.models.resorter")
