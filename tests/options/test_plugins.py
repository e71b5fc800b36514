"""Plug-ins: found, run once, in every process; a mistake in one is told in one line with its place."""

import os
import pickle
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import mambair.losses
from mambair import registry
from mambair.data.plugin_datasets import PluginDataset
from mambair.data.samplers import Draw
from mambair.data.seeded_dataset import SeededDataset
from mambair.errors import UserError
from mambair.options import dump_options, parse_train_options, plugins
from mambair.options.plugins import load_installed_plugins, load_plugins, loaded_plugins
from mambair.registry import DATASETS, LOSSES

PROJECT = Path(__file__).resolve().parents[2]

LOSS = """\
from mambair.registry import LOSSES

@LOSSES.register({arguments})
class {name}:
    def __call__(self, prediction, target):
        return (prediction - target).abs().mean()
"""

OPTIONS = """\
name: run
scale: 2
plugins: {plugins}
datasets:
  train: {{type: PairedImageDataset, dataroot_gt: gt, gt_size: 16, batch_size_per_gpu: 2}}
network_g: {{type: MambaIR, upscale: 2}}
train:
  total_iter: 1
  optim_g: {{type: Adam, lr: 1e-4}}
  losses: [{{type: {loss}}}]
"""


pytestmark = pytest.mark.usefixtures("plugins_forgotten")


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_loss(folder: Path, file: str, name: str, arguments: str = "") -> Path:
    return write(folder, file, LOSS.format(name=name, arguments=arguments))


def test_option_files_load_files_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_loss(tmp_path / "files", "own_loss.py", "BesideLoss")
    path = write(tmp_path / "files", "run.yml", OPTIONS.format(plugins="[own_loss.py]", loss="BesideLoss"))
    monkeypatch.chdir(tmp_path)
    options = parse_train_options(path)
    assert options.plugins == [str(tmp_path / "files" / "own_loss.py")]  # whatever the working directory
    assert LOSSES.plugin_of("BesideLoss") == "own_loss.py"
    assert LOSSES.plugin_of("L1Loss") is None
    again = write(tmp_path / "elsewhere", "again.yml", dump_options(options))
    assert parse_train_options(again).plugins == options.plugins
    assert len(loaded_plugins()) == 1  # once


def test_modules_beside_the_file_and_their_neighbours(tmp_path: Path) -> None:
    write(tmp_path, "my_package/__init__.py", "")
    write(tmp_path, "my_package/parts.py", "NAME = 'PackagedLoss'\n")
    write_loss(tmp_path, "my_package/losses.py", "Loss", "NAME")
    source = tmp_path / "my_package" / "losses.py"
    source.write_text("from my_package.parts import NAME\n" + source.read_text())
    write(tmp_path, "more.py", "import neighbour\n")
    write_loss(tmp_path, "neighbour.py", "NeighbourLoss")
    load_plugins(["my_package.losses", "more.py", "neighbour.py"], tmp_path)
    assert {"PackagedLoss", "NeighbourLoss"} <= set(LOSSES.names())


def test_the_command_line_adds_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_loss(tmp_path, "extra.py", "ExtraLoss")
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, "run.yml", OPTIONS.format(plugins="[]", loss="ExtraLoss"))
    assert parse_train_options(path, plugins=["extra.py"]).plugins == [str(tmp_path / "extra.py")]


def test_names_of_plugins_take_part_in_suggestions(tmp_path: Path) -> None:
    write_loss(tmp_path, "own.py", "WonderfulLoss")
    load_plugins(["own.py"], tmp_path)
    with pytest.raises(UserError, match="did you mean 'WonderfulLoss'"):
        LOSSES.get("WonderfullLoss")


def test_a_taken_name_is_refused_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    assert mambair.losses  # registers its own names
    path = write_loss(tmp_path, "taken.py", "L1Loss")
    with pytest.raises(UserError, match="taken by mambair") as caught:
        load_plugins(["taken.py"], tmp_path)
    assert str(caught.value).startswith(f"plugins: the plug-in taken.py at {path}:3: loss 'L1Loss' is taken by mambair")
    load_plugins([str(write_loss(tmp_path, "willing.py", "L1Loss", "replace=True"))], tmp_path)
    assert LOSSES.get("L1Loss").__module__ == "willing"


def test_a_replaced_name_stays_so_when_the_package_registers_its_own_later() -> None:
    own: registry.Registry = registry.Registry("thing")
    with registry.registering_for("early.py"):
        own.register("Taken")(type("Taken", (), {"__module__": "early"}))
        own.register("Replaced", replace=True)(type("Replaced", (), {"__module__": "early"}))
    ours = type("Ours", (), {"__module__": "mambair.thing"})
    own.register("Replaced")(ours)
    assert own.get("Replaced") is not ours
    with pytest.raises(UserError, match=r"'Taken' of plug-in early\.py is taken by mambair"):
        own.register("Taken")(ours)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import os\n\n1 / 0\n", ":3: ZeroDivisionError: division by zero"),
        ("def f(:\n", ":1: SyntaxError: invalid syntax"),
        ("import no_such_library\n", ":1: ModuleNotFoundError: No module named 'no_such_library'"),
        ("import torch\ntorch.zeros(2) @ torch.zeros(3)\n", ":2: RuntimeError"),
        ("def f():\n    raise KeyError('x')\nf()\n", ":2: KeyError: 'x'"),
    ],
)
def test_a_failing_plugin_is_one_line(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, "failing.py", text)
    with pytest.raises(UserError) as caught:
        load_plugins(["failing.py"], tmp_path, "run.yml:3: plugins")
    message = str(caught.value)
    assert message.startswith(f"run.yml:3: plugins: the plug-in failing.py fails at {path}{expected}")
    assert "\n" not in message and "--debug" in message
    assert "failing" not in sys.modules


def test_debug_shows_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write(tmp_path, "failing.py", "1 / 0\n")
    with pytest.raises(UserError):
        load_plugins(["failing.py"], tmp_path, show_traceback=True)
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("missing.py", "there is no plug-in"),
        ("no_such_package.losses", "there is no module 'no_such_package.losses'"),
        ("../x", "neither a Python file"),
    ],
)
def test_what_is_not_there(tmp_path: Path, spec: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        load_plugins([spec], tmp_path)


def test_a_file_does_not_hide_a_library_of_its_name(tmp_path: Path) -> None:
    write_loss(tmp_path, "statistics.py", "ShadowLoss")
    load_plugins(["statistics.py"], tmp_path)
    import statistics

    assert statistics.mean([1, 3]) == 2
    assert "ShadowLoss" in LOSSES


def installed(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Pretend that packages with these entry points are installed."""
    points = [EntryPoint(name=module, value=module, group=plugins.GROUP) for module in modules]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == plugins.GROUP else [])


def test_installed_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_loss(tmp_path, "good_package.py", "InstalledLoss")
    write(tmp_path, "bad_package.py", "1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    installed(monkeypatch, "bad_package", "good_package")
    (warning,) = load_installed_plugins()
    assert "bad_package" in warning and "ZeroDivisionError" in warning
    assert LOSSES.plugin_of("InstalledLoss") == "good_package"
    assert load_installed_plugins() == []


def test_a_real_entry_point_is_found_by_option_files(tmp_path: Path) -> None:
    """As pip leaves a package: a module, and metadata with the entry point."""
    write_loss(tmp_path, "their_package.py", "TheirLoss")
    write(tmp_path, "their_package-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: their-package\nVersion: 1\n")
    write(tmp_path, "their_package-1.0.dist-info/entry_points.txt", "[mambair.plugins]\nlosses = their_package\n")
    path = write(tmp_path, "run.yml", OPTIONS.format(plugins="[]", loss="TheirLoss"))
    code = (
        "import sys; from mambair.options import parse_train_options; from mambair.registry import LOSSES\n"
        "parse_train_options(sys.argv[1]); print(LOSSES.plugin_of('TheirLoss'))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(PROJECT), str(tmp_path)])}
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "their_package", done.stderr


DATASET = """\
import torch
from mambair.registry import DATASETS

@DATASETS.register()
class SpawnedDataset:
    def __len__(self):
        return 3
    def sample(self, index, rng):
        return {"lq": torch.full((3, 4, 4), float(index)), "gt": torch.ones(3, 8, 8)}
"""


def test_workers_that_are_spawned_have_the_plugins(tmp_path: Path) -> None:
    """A process that has loaded nothing unpickles a data set of a plug-in's class, as spawned workers do."""
    write(tmp_path, "spawned.py", DATASET)
    load_plugins(["spawned.py"], tmp_path)
    inner = PluginDataset(DATASETS.get("SpawnedDataset")(), "SpawnedDataset", "datasets.train")
    dataset = SeededDataset(inner, seed=0)
    pickled = write(tmp_path, "dataset.pickle", "")
    pickled.write_bytes(pickle.dumps(dataset))
    code = (
        "import pickle, sys; from mambair.data.samplers import Draw\n"
        "dataset = pickle.loads(open(sys.argv[1], 'rb').read())\n"
        "print(dataset[Draw(5, None)]['lq'].mean().item())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(pickled)],
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        cwd=tmp_path.parent,
        capture_output=True,
        text=True,
    )
    assert float(done.stdout) == dataset[Draw(5, None)]["lq"].mean().item(), done.stderr
