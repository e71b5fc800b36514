"""The commands of the documentation, and a world in which they can be run: tiny networks, tiny data."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import skimage.data
import torch
import yaml

from mambair.archs import build_network
from mambair.imaging.files import write_image
from mambair.imaging.resize import imresize
from tests.engine.tiny_run import NETWORK

PROJECT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:mambair|python|pip|bash|torchrun) [^`]+)`")
_COMMENT = re.compile(r"(^|\s+)#\s.*$", re.MULTILINE)
_TYPED = ("mambair ", "python ", "pip ", "bash ", "torchrun ")

SECONDS = 300

# Stand-ins on PATH for what an installation puts there; two processes do for eight.
_PROGRAMS = {
    "python": 'exec "{python}" "$@"',
    "mambair": 'exec "{python}" -m mambair "$@"',
    "torchrun": 'exec "{python}" -m torch.distributed.run --standalone "${{@/--nproc_per_node=8/--nproc_per_node=2}}"',
    "pip": 'echo "$@" >> "{world}/pip.log"',
}
# In place of a Python that makes virtual environments: theirs note what pip would install, and that types would be
# checked (which takes a minute), and else are this one.
_BASE_PYTHON = """#!/bin/bash
if [ "$1 $2" = "-m venv" ]; then
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
elif [ "$1 $2" = "-m pip" ]; then
    echo "${{@:3}}" >> "{world}/pip.log"
elif [ "$1 $2" = "-m mypy" ]; then
    touch "{world}/mypy.log"
else
    exec "{python}" "$@"
fi
"""


DEMO = "mambair demo"
"""Run by test_readme.py by itself: it serves until it is stopped."""


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a Markdown file."""
    return [Block(*match) for match in _FENCE.findall(page.read_text(encoding="utf-8"))]


def commands(page: Path) -> list[str]:
    """The command lines in the bash blocks of a page, continued lines joined, comments removed."""
    lines = []
    for block in blocks(page):
        if block.language == "bash":
            lines += _joined(_COMMENT.sub("", block.text.replace("\\\n", " ")).splitlines())
        else:
            stray = [line for line in block.text.splitlines() if line.startswith(_TYPED)]
            assert not stray, f"{page}: commands outside of a bash block: {stray}"
    return [" ".join(line.split()) for line in lines if line.strip()]


def _joined(lines: list[str]) -> Iterator[str]:
    """Lines of a shell, those between quotes joined."""
    waiting = ""
    for line in lines:
        waiting = f"{waiting} {line}".strip()
        try:
            shlex.split(waiting)
        except ValueError:  # no closing quotation yet
            continue
        yield waiting
        waiting = ""
    assert not waiting, f"a quotation that does not end: {waiting}"


def inline_commands(page: Path) -> list[str]:
    """Commands in running text, between backticks."""
    return _INLINE.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Recipe:
    """How a documented command is tried, and what must come of it."""

    makes: tuple[str, ...] = ()
    """Files that must be there afterwards."""
    prints: str = ""
    """What it must print."""
    first: str | None = None
    """A command to run before it."""


def shrink(options: dict[str, Any]) -> dict[str, Any]:
    """An option file with a tiny network, few iterations and small patches; tasks and components stay."""
    network = options["network_g"]
    if network["type"] == "MambaIR":
        network |= {key: NETWORK[key] for key in ("embed_dim", "depths", "d_state", "mlp_ratio")}
    options["num_gpu"] = "auto"
    train_set = options.get("datasets", {}).get("train", {})
    if train_set:
        train_set |= {"gt_size": 8 * options["scale"], "batch_size_per_gpu": 2, "num_worker_per_gpu": 0}
        options["train"] |= {"total_iter": 2, "warmup_iter": -1}
        options["val"]["val_freq"] = 2
        options["logger"] |= {"print_freq": 1, "save_checkpoint_freq": 2}
    weights = options.get("path", {}).get("pretrain_network_g")
    if weights is not None:
        options["path"]["pretrain_network_g"] = re.sub(r"net_g_\d+", "net_g_2", weights)
    return options


def _write_options(world: Path, name: str) -> dict[str, Any]:
    options = shrink(yaml.safe_load((PROJECT / "options" / name).read_text(encoding="utf-8")))
    path = world / "options" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(options), encoding="utf-8")
    return options


def _copy_options(world: Path, name: str) -> None:
    """An option file as it is: its network must fit the weights in the package."""
    shutil.copy(PROJECT / "options" / name, world / "options" / name)


def _write_pairs(folder: Path, template: str, scale: int = 2) -> None:
    for name in ("coffee", "astronaut"):
        photo = getattr(skimage.data, name)()[100:140, 200:248]
        write_image(folder / "HR" / f"{name}.png", photo)
        small = folder / "LR_bicubic" / f"X{scale}" / f"{template.format(name)}.png"
        write_image(small, imresize(photo, 1 / scale))


def _save(path: Path, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"params": build_network(options).state_dict()}, path)


def _write_weights(world: Path, classic: dict[str, Any]) -> None:
    """Weights by all the names that the documentation uses."""
    _save(world / "my_network.pth", classic)
    _save(world / "experiments" / "SR_x2" / "models" / "net_g_2.pth", classic)
    light = NETWORK | {"drop_path_rate": 0.1}
    for path in ("cache/lightSR_x2.pth", "lightSR_x2.pth", "with_ca.pth"):
        _save(world / path, light)
    for path in ("cache/ColorDN_25.pth", "denoiser.pth"):
        _save(world / path, light | {"upscale": 1, "upsampler": ""})
    _save(world / "without_ca.pth", light | {"local_block": "none"})


def _write_photos(world: Path) -> None:
    photo = skimage.data.astronaut()[100:117, 200:223]
    for name in ("photo.jpg", "photo.png", "photos/a.png", "photos/sub/b.png", "scans/1/page.tif"):
        write_image(world / name, np.ascontiguousarray(photo))


def build_world(world: Path) -> None:
    """A folder that looks to the documented commands like a checkout with data and weights in it."""
    for name in ("mambair", "scripts", "docs", "pyproject.toml", "requirements.txt", "README.md"):
        (world / name).symlink_to(PROJECT / name)
    for name, line in _PROGRAMS.items():
        _write_program(world / "bin" / name, "#!/bin/bash\n" + line + "\n", world)
    _write_program(world / "bin" / "base-python", _BASE_PYTHON, world)
    classic = _write_options(world, "train/SR_x2.yml")["network_g"]
    for name in ("test/SR_x2.yml", "train/quickstart.yml", "test/quickstart.yml"):
        _write_options(world, name)
    _copy_options(world, "test/quickstart_shipped.yml")
    _write_pairs(world / "datasets" / "DF2K", "{}x2")
    for name in ("Set5", "Set14", "B100", "Urban100"):
        _write_pairs(world / "datasets" / name, "{}x2")
    _write_pairs(world / "datasets" / "Manga109", "{}_LRBI_x2")
    _write_weights(world, classic)
    _write_photos(world)
    (world / "tests").mkdir()
    (world / "tests" / "test_that_it_runs.py").write_text("def test_that_it_runs():\n    assert True\n")


def _write_program(path: Path, text: str, world: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(python=sys.executable, world=world))
    path.chmod(0o755)


def environment(world: Path, **more: str) -> dict[str, str]:
    """The environment of a command: the stand-ins first, no GPU, one thread, an own cache."""
    return os.environ | {
        "PATH": f"{world / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHON": str(world / "bin" / "base-python"),
        "MAMBAIR_CACHE": str(world / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "PYTHONPATH": str(PROJECT),
        **more,
    }


def run(command: str, world: Path, **more: str) -> str:
    """Run a line in a shell in the world; returns what it printed, and fails with it on another exit code than 0."""
    done = subprocess.run(
        [shutil.which("bash"), "-c", command],
        cwd=world,
        env=environment(world, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"$ {command}\n{done.stdout}"
    return done.stdout


def run_python(code: str, world: Path, **more: str) -> None:
    """Run Python code in the world; fails with its traceback if it raises."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=world,
        env=environment(world, **more),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def try_recipe(command: str, recipe: Recipe, world: Path, **more: str) -> None:
    """Run a documented command and check what came of it."""
    if recipe.first is not None:
        run(recipe.first, world, **more)
    check_outcome(command, recipe, world, run(command, world, **more))


def check_outcome(command: str, recipe: Recipe, world: Path, printed: str) -> None:
    """Whether a command that ended well printed and made what it should."""
    assert recipe.prints in printed, printed
    missing = [name for name in recipe.makes if not (world / name).exists()]
    assert not missing, f"$ {command}\n{printed}\nnot made: {missing}"
