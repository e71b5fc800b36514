"""The entry files as people start them: from another folder, without installation, with loader processes."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mambair
from mambair import cli
from tests.engine.tiny_run import train_options, write_options

PROJECT = Path(__file__).resolve().parents[2]

# For a sitecustomize.py: takes away what an editable installation put in, be it a finder or a path.
NOT_INSTALLED = f"""
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
sys.path[:] = [entry for entry in sys.path if entry != {str(PROJECT)!r}]
"""


def start(*command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_the_check_below_takes_the_installation_away(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOT_INSTALLED)
    finished = start("-c", "import mambair", folder=tmp_path, PYTHONPATH=str(tmp_path))
    assert "ModuleNotFoundError: No module named 'mambair'" in finished.stderr


def test_train_as_a_file_with_spawned_loader_processes(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        f"{NOT_INSTALLED}\nimport torch.multiprocessing as m\nm.set_start_method('spawn')\n"
    )
    options = train_options(tmp_path, train__total_iter=2, val=None, datasets__train__num_worker_per_gpu=1)
    options["path"]["root"] = "."
    finished = start(
        str(PROJECT / "mambair" / "train.py"),
        "-opt",
        str(write_options(tmp_path, options)),
        "--force_yml",
        "name=forced",
        "logger:use_tb_logger=true",
        folder=tmp_path,
        PYTHONPATH=str(tmp_path),
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    assert (tmp_path / "experiments/forced/models/net_g_2.pth").is_file()
    assert list((tmp_path / "tb_logger/forced").glob("events.*"))
    assert "iter 2/2" in finished.stdout
    assert "weights: experiments/forced/models/net_g_2.pth" in finished.stdout
    restore = PROJECT / "mambair" / "restore.py"
    assert f"next: python {restore} photo.jpg -o restored --weights experiments/forced" in " ".join(
        finished.stdout.split()
    )


def test_test_as_a_file_has_one_line_for_a_mistake(tmp_path: Path) -> None:
    finished = start(str(PROJECT / "mambair" / "test.py"), "-opt", "nowhere.yml", folder=tmp_path)
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: nowhere.yml: no such option file")
    assert finished.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([name, "--help"])
    assert left.value.code == 0
    assert "usage: " in capsys.readouterr().out


def test_commands_are_imported_only_when_asked_for(tmp_path: Path) -> None:
    finished = start(
        "-c",
        "import sys; from mambair.cli import main; main(['--help']); assert 'torch' not in sys.modules",
        folder=tmp_path,
    )
    assert finished.returncode == 0, finished.stderr
    assert all(f"  {name} " in finished.stdout for name in cli.COMMANDS)


def test_unknown_command_and_none(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["trian"]) == 2
    assert "error: mambair: no command 'trian'; did you mean 'train'?" in capsys.readouterr().err
    assert cli.main([]) == 2
    assert cli.main(["--version"]) == 0
    assert mambair.__version__ in capsys.readouterr().out


@pytest.mark.parametrize("command", cli.COMMANDS.values(), ids=lambda command: command.target)
def test_targets_exist(command: cli.Command) -> None:
    module, _, function = command.target.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
