"""Every command in the README is run, as it stands there, through the command line.

Each runs in a world of its own: option files as the project ships them, but with tiny networks and two iterations;
photos and data of a few pixels. A command that this file does not know fails the test.
"""

import re
import signal
import subprocess
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tomllib

from mambair import cli
from mambair.weights.published import PUBLISHED
from tests.commands.documented import (
    DEMO,
    PROJECT,
    SECONDS,
    Recipe,
    blocks,
    commands,
    environment,
    inline_commands,
    run_python,
    try_recipe,
)

README = PROJECT / "README.md"

TRAIN = "python mambair/train.py -opt options/train/SR_x2.yml"
TRAINED = ("experiments/SR_x2/models/net_g_2.pth", "experiments/SR_x2/training_states/2.state")
TINY = "cp options/train/SR_x2.yml my.yml"
"""In the place of the file that `options new` writes, whose network is too large for a test."""
TESTED = ("results/SR_x2/metrics.json", "results/SR_x2/metrics.md", "results/SR_x2/report.html")

RECIPES = {
    "bash scripts/quickstart.sh": Recipe(
        ("experiments/quickstart/models/net_g_latest.pth", "results/quickstart/comparison.png", "pip.log"),
        "The network in the package against bicubic on held_out_photos: +",
    ),
    "bash scripts/test.sh": Recipe(("pip.log", "mypy.log"), "1 passed"),
    "pip install .": Recipe(("pip.log",)),
    "mambair doctor": Recipe(prints="everything that is installed works"),
    "mambair restore photo.jpg -o restored": Recipe(("restored/photo.jpg",), "restored 1 in"),
    "mambair weights get lightSR_x2 ColorDN_25": Recipe(prints="already in"),
    "mambair restore photo.jpg -o clean --task denoise": Recipe(("clean/photo.jpg",), "restored 1 in"),
    "mambair restore photo.jpg -o published --weights lightSR_x2": Recipe(("published/photo.jpg",), "restored 1 in"),
    "mambair restore photos/ -o restored --weights my_network.pth --ensemble --skip-existing": Recipe(
        ("restored/a.png", "restored/sub/b.png"), "restored 2 in"
    ),
    "mambair options new x2 -o my.yml --images photos": Recipe(("my.yml",)),
    "mambair options check my.yml": Recipe(prints="my.yml", first="mambair options new x2 -o my.yml --images photos"),
    "mambair train -opt my.yml": Recipe(TRAINED, "iter 2/2", first=TINY),
    "mambair data check -opt options/train/SR_x2.yml": Recipe(prints="DF2K"),
    TRAIN: Recipe(TRAINED, "iter 2/2"),
    "torchrun --nproc_per_node=8 mambair/train.py -opt options/train/SR_x2.yml --launcher pytorch": Recipe(
        TRAINED, "iter 2/2"
    ),
    f"{TRAIN} --auto_resume": Recipe(TRAINED, "2.state", first=TRAIN),
    f"{TRAIN} --force_yml train:total_iter=100 --debug": Recipe(("experiments/debug_SR_x2/models",), "iter 8/"),
    "python mambair/test.py -opt options/test/SR_x2.yml": Recipe(TESTED, "Urban100"),
    "python mambair/test.py -opt options/test/SR_x2.yml --force_yml path:pretrain_network_g=my_network.pth": Recipe(
        TESTED, "Manga109"
    ),
}


def test_every_command_is_tried_here() -> None:
    found = set(commands(README))
    assert found - {DEMO} - RECIPES.keys() == set(), "commands in the README that no test runs"
    assert RECIPES.keys() - found == set(), "recipes of commands that are not in the README"
    assert DEMO in found


def test_a_command_that_nobody_knows_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```bash\nmambair fly  # no such thing\nmambair \\\n    doctor\n```\nand `mambair swim`\n")
    assert commands(page) == ["mambair fly", "mambair doctor"]
    assert inline_commands(page) == ["mambair swim"]
    page.write_text("```\nmambair hidden\n```\n")
    with pytest.raises(AssertionError, match="mambair hidden"):
        commands(page)


@pytest.mark.parametrize("command", RECIPES, ids=lambda command: re.sub(r"\W+", "-", command))
def test_command(command: str, world: Path) -> None:
    try_recipe(command, RECIPES[command], world)


def test_demo(world: Path) -> None:
    pytest.importorskip("gradio", reason="the extra [demo] is not installed")
    server = subprocess.Popen(
        ["bash", "-c", f"exec {DEMO}"],
        cwd=world,
        env=environment(world, PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A test run in the background ignores SIGINT, and what it starts would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        line = server.stdout.readline()
        address = re.search(r"http://\S+", line)
        assert address is not None, line + server.stdout.read()
        with urllib.request.urlopen(address[0], timeout=SECONDS) as answer:
            assert "MambaIR: restore an image" in answer.read().decode()
        server.send_signal(signal.SIGINT)
        assert server.wait(SECONDS) == 0
    finally:
        server.kill()
        server.wait()


def test_python_blocks(world: Path) -> None:
    (block,) = (block.text for block in blocks(README) if block.language == "python")
    code = "import numpy as np\nimage = np.zeros((6, 9, 3), np.uint8)\n" + block + "assert clean.shape == (6, 9, 3)\n"
    run_python(code, world)


def test_what_pip_would_install_exists() -> None:
    """The install lines themselves run in scripts/test.sh; here: that what they name is there."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    install = [line for line in (*commands(README), *inline_commands(README)) if line.startswith("pip install")]
    assert any("." in line.split() for line in install)
    for line in install:
        for extra in (name for names in re.findall(r"\[([\w,-]+)\]", line) for name in names.split(",")):
            assert extra in project["optional-dependencies"], line
    named = re.search(r"Extras, as in .*?\n\n", README.read_text(), re.DOTALL)[0]
    assert {extra for extra in project["optional-dependencies"] if f"`{extra}`" not in named} == set()


def test_commands_in_running_text_exist() -> None:
    for line in inline_commands(README):
        if line.startswith("mambair "):
            assert line.split()[1] in cli.COMMANDS, line


def test_links_lead_somewhere() -> None:
    for page in (README, *PROJECT.glob("docs/**/*.md"), PROJECT / "datasets" / "README.md"):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_table_of_tasks_names_recipes_and_published_weights() -> None:
    table = README.read_text().partition("## Tasks and weights")[2].partition("##")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "`" in line][1:]
    rows = [row for row in rows if len(row) == 5]
    named = set()
    for _, recipe, weights, figures, _ in rows:
        for name in re.findall(r"`(\w+)`", recipe):
            assert list(PROJECT.glob(f"options/*/{name}.yml")), name
        names = re.findall(r"`(\w+)`", recipe if weights == "same names" else weights)
        named.update(names)
        if not figures.startswith(("in no table", "no ground")):
            values = set(re.findall(r"\d\d\.\d\d", PUBLISHED[names[0]].figures))
            assert set(re.findall(r"\d\d\.\d\d", figures)) <= values, names
    assert named == PUBLISHED.keys()
    assert np.all([len(row) == 5 for row in rows])
