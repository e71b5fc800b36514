"""docs/extending.md and examples/: the same files, and they do what the page says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import skimage.data
import yaml

from mambair import cli
from mambair.commands.options.check import mistakes
from mambair.imaging.files import write_image
from mambair.options import parse_train_options
from mambair.options.yaml_reader import parse_value
from tests.commands.documented import PROJECT, blocks, commands, environment

PAGE = PROJECT / "docs" / "extending.md"
EXPORT_PAGE = PROJECT / "docs" / "export.md"
EXAMPLES = PROJECT / "examples"

pytestmark = pytest.mark.usefixtures("plugins_forgotten")


def printed_files(page: Path = PAGE) -> dict[str, str]:
    """The files that a page prints, by name."""
    found = re.findall(r"^<!-- examples/(\S+) -->\n```\w+\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    return dict(found)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader has after saving all files: nothing of the project is beside them."""
    for name, text in printed_files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name in ("astronaut", "coffee"):
        photo = getattr(skimage.data, name)()[100:148, 200:260]
        write_image(tmp_path / "photos" / f"{name}.png", photo)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_pages_print_the_examples() -> None:
    files = {path.name: path.read_text(encoding="utf-8") for path in EXAMPLES.iterdir() if path.is_file()}
    assert printed_files() | printed_files(EXPORT_PAGE) == files


def run(command: str, folder: Path) -> None:
    program, *arguments = shlex.split(command)
    if program == "mambair":
        assert cli.main(arguments) == 0, command
        return
    line = [sys.executable, *arguments]
    done = subprocess.run(line, cwd=folder, env=environment(folder), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_commands_of_the_page(folder: Path, capsys: pytest.CaptureFixture) -> None:
    for command in commands(PAGE):
        if not command.startswith("pip "):
            run(command, folder)
    printed = capsys.readouterr().out
    assert "l_my" in printed and "l_fourier" in printed
    assert "worst" in printed
    for name in ("restored/coffee.png", "restored_by_mine/coffee.png", "experiments/mine/models/net_g_best.pth"):
        assert (folder / name).is_file()
    kept = {path.name for path in (folder / "experiments" / "mine" / "plugins").iterdir()}
    assert kept == {name for name in printed_files() if name.startswith("my_") and name.endswith(".py")}


def test_weights_without_their_plugin_say_which_one(folder: Path) -> None:
    """In new processes, which have loaded nothing; by --plugin they can be used."""
    environment_of = environment(folder)
    shorter = "train:total_iter=2 val=~ datasets:train:num_worker_per_gpu=0"
    run(f"mambair train -opt my_options.yml --force_yml {shorter}", folder)
    weights = "experiments/mine/models/net_g_latest.pth"
    command = [sys.executable, "-m", "mambair", "weights", "convert", weights, "-o", "again.safetensors"]
    for source in (weights, "mine.safetensors"):
        command[5] = source
        done = subprocess.run(command, cwd=folder, env=environment_of, capture_output=True, text=True)
        assert done.returncode == 2
        assert "are of MyNetwork, a network of the plug-in my_network.py, which is not loaded" in done.stderr
        assert "--plugin my_network.py" in done.stderr
        if source == weights:
            run(f"mambair weights convert {weights} -o mine.safetensors --plugin my_network.py", folder)


def fragments() -> list[dict[str, Any]]:
    """The pieces of option files that the page shows besides whole files."""
    texts = [block.text for block in blocks(PAGE) if block.language == "yaml"]
    return [parse_value(text, "extending.md") for text in texts if text not in printed_files().values()]


@pytest.mark.parametrize("fragment", fragments(), ids=lambda fragment: "-".join(next(iter(fragment.values()))))
def test_fragments_are_right(fragment: dict[str, Any], folder: Path) -> None:
    if "ScheduleFree" in str(fragment):
        pytest.importorskip("schedulefree")
    options = yaml.safe_load((folder / "my_options.yml").read_text())
    options["train"] |= fragment.get("train", {})
    if "datasets" in fragment:
        options["datasets"]["train"] = fragment["datasets"]["train"] | {"gt_size": 32, "batch_size_per_gpu": 2}
    path = folder / "fragment.yml"
    path.write_text(yaml.safe_dump(options))
    assert mistakes(parse_train_options(path)) == []
