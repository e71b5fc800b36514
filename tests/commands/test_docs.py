"""The commands of the pages below docs/.

Those on restoring, weights and analyses are run. Of the others, whose data take days or terabytes, the files that they
name exist and the commands take their arguments.
"""

import argparse
import importlib
import re
import runpy
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mambair import cli
from mambair.commands import weights
from mambair.commands.test import build_parser as build_test_parser
from mambair.data.loaders import build_val_datasets
from mambair.imaging.files import write_image
from mambair.options import parse_run_arguments, parse_test_options, parse_train_options
from mambair.weights.published import PUBLISHED
from tests.commands.documented import DEMO, PROJECT, Recipe, blocks, check_outcome, commands, run_python, try_recipe
from tests.fake_hub import serve

DOCS = PROJECT / "docs"
RUN = ("restore.md", "weights.md", "analysis.md")
READ = (
    "export.md",
    "tasks.md",
    "v2.md",
    "options.md",
    "finetune.md",
    "model_card.md",
    "networks.md",
    "performance.md",
    "benchmarks.md",
    "runs.md",
    "clusters.md",
    "troubleshooting.md",
    "development/kernels.md",
    "../datasets/README.md",
)

OTHERS = ("cp", "curl", "git", "ln", "mkdir", "pip", "rm", "tar", "tensorboard")
"""Programs that are not the project's."""
TORCHRUN = ("--nproc_per_node", "--nnodes", "--node_rank", "--master_addr", "--master_port")

RECIPES = {
    "mambair restore photo.jpg -o restored": Recipe(("restored/photo.jpg",)),
    "mambair restore photo.png -o restored": Recipe(("restored/photo.png",)),
    "mambair restore photo.jpg -o clean --task denoise": Recipe(("clean/photo.jpg",)),
    "mambair restore photo.jpg -o clean25 --task denoise --noise 25": Recipe(("clean25/photo.jpg",)),
    "mambair restore photo.jpg -o out --task denoise": Recipe(("out/photo.jpg",)),
    "mambair weights convert denoiser.pth -o blind.safetensors --task denoise --noise 0-55": Recipe(
        ("blind.safetensors",), "SHA-256"
    ),
    "mambair restore photo.jpg -o mine --weights my_network.pth": Recipe(("mine/photo.jpg",)),
    "mambair restore photos/ -o out --weights my_network.pth": Recipe(("out/a.png", "out/sub/b.png"), "restored 2 in"),
    'mambair restore "scans/**/*.tif" -o out --weights my_network.pth': Recipe(("out/1/page.tif",)),
    'find photos -name "*.png" -print0 | mambair restore - -o out --weights my_network.pth': Recipe(
        ("out/a.png", "out/b.png")
    ),
    "mambair restore clip.mp4 -o out --weights my_network.pth --batch 8": Recipe(("out/clip.mp4",)),
    "python scripts/tile_error.py --weights x2 photos/*.png --tiles 64 128 --overlaps 8 16 32": Recipe(
        prints="published"
    ),
    "mambair doctor": Recipe(prints="everything that is installed works"),
    "mambair weights list": Recipe(prints="lightSR_x2"),
    "mambair weights get lightSR_x2 ColorDN_25": Recipe(prints="already in"),
    "mambair restore photo.png -o restored --weights lightSR_x2": Recipe(("restored/photo.png",)),
    "mambair weights convert denoiser.pth -o denoiser.safetensors --task denoise --noise 25": Recipe(
        ("denoiser.safetensors",), "SHA-256"
    ),
    "mambair weights convert my_network.pth -o my_network_half.safetensors --half": Recipe(
        ("my_network_half.safetensors",), "SHA-256"
    ),
    "mambair restore photo.png -o restored --weights hf://owner/repo/model.safetensors": Recipe(
        ("restored/photo.png",)
    ),
    "mambair analyze complexity": Recipe(prints="198.1G"),
    "mambair analyze complexity -opt options/train/SR_x2.yml --output-size 1280x720": Recipe(prints="SR_x2"),
    "mambair analyze complexity --plot cost.png": Recipe(("cost.png",)),
    "mambair analyze erf --weights lightSR_x2.pth swinir_light_x2.pth -o erf.png": Recipe(("erf.png", "erf.json")),
    "mambair analyze activation --weights with_ca.pth without_ca.pth -o activation.png": Recipe(
        ("activation.png", "activation.json")
    ),
}


def needs_extra(command: str) -> None:
    """Skip where an optional package that the command needs is missing."""
    for sign, package in {
        ".mp4": "av",
        ".png --plot": "matplotlib",
        "swinir": "spandrel",
        "hf://": "huggingface_hub",
    }.items():
        if sign in command:
            pytest.importorskip(package)
    if command.startswith("mambair analyze"):
        pytest.importorskip("matplotlib")


def write_clip(path: Path) -> None:
    """A video of three frames."""
    import av
    import numpy as np

    with av.open(str(path), "w") as writer:
        stream = writer.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 60 * index, np.uint8), format="rgb24")
            writer.mux(stream.encode(frame))
        writer.mux(stream.encode(None))


def write_swinir(path: Path) -> None:
    """Weights of another family."""
    from spandrel.architectures.SwinIR import SwinIR

    size = {"img_size": 16, "window_size": 8, "depths": [2], "embed_dim": 12, "num_heads": [2]}
    torch.save({"params": SwinIR(**size, upscale=2, upsampler="pixelshuffledirect").state_dict()}, path)


def test_every_command_is_tried_here() -> None:
    found = {command for page in RUN for command in commands(DOCS / page)}
    assert found - {DEMO} - RECIPES.keys() == set(), "commands in docs/ that no test runs"
    assert RECIPES.keys() - found == set(), "recipes of commands that are in no page"


@pytest.mark.parametrize("command", RECIPES, ids=lambda command: re.sub(r"\W+", "-", command))
def test_command(command: str, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    needs_extra(command)
    if "clip.mp4" in command:
        write_clip(world / "clip.mp4")
    if "swinir" in command:
        write_swinir(world / "swinir_light_x2.pth")
    if "hf://" in command:
        with serve() as (hub, address):
            hub.files["model.safetensors"] = converted(world)
            try_recipe(command, RECIPES[command], world, HF_ENDPOINT=address, HF_HOME=str(world / "hub"))
        assert hub.downloads == ["model.safetensors"]
    elif command.startswith("mambair "):  # in this process, which spares the start of another; the README's are started
        monkeypatch.chdir(world)
        monkeypatch.setenv("MAMBAIR_CACHE", str(world / "cache"))
        assert cli.main(shlex.split(command)[1:]) == 0
        check_outcome(command, RECIPES[command], world, capsys.readouterr().out)
    else:
        try_recipe(command, RECIPES[command], world)


def converted(world: Path) -> bytes:
    """The world's network as safetensors."""
    target = world / "model.safetensors"
    assert weights.main(["convert", str(world / "my_network.pth"), "-o", str(target)]) == 0
    return target.read_bytes()


@pytest.mark.parametrize("page", RUN)
def test_python_blocks(page: str, world: Path) -> None:
    codes = [block.text for block in blocks(DOCS / page) if block.language == "python"]
    if page == "weights.md":
        pytest.importorskip("huggingface_hub")
        pytest.importorskip("spandrel")
    if codes:
        run_python("import numpy as np\nimage = np.zeros((6, 9, 3), np.uint8)\n" + "\n".join(codes), world)


def test_the_table_of_weights_is_the_list() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| x(\d) \| (.*?) \| (.*?) \|$", (DOCS / "weights.md").read_text(), re.M)
    assert rows == [
        (name, entry.task, str(entry.scale), entry.figures, entry.sha256 or "unknown")
        for name, entry in PUBLISHED.items()
    ]


def accepted(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """What a parser makes of documented arguments."""
    try:
        return parser.parse_args(arguments)
    except SystemExit:
        pytest.fail(f"{parser.prog} does not take {' '.join(arguments)}")


def read_commands() -> Iterator[str]:
    for page in READ:
        yield from commands(DOCS / page)


def selfexsr() -> str:
    """The file that benchmarks.md has its readers save."""
    (text,) = (block.text for block in blocks(DOCS / "benchmarks.md") if block.language == "yaml")
    return text


def words_of(command: str, folder: Path) -> list[str]:
    """What a shell makes of a line, which may print a file of the folder."""
    if "$(" not in command:
        return shlex.split(command)
    (folder / "selfexsr.yml").write_text(selfexsr())
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], cwd=folder, capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("command", sorted(set(read_commands())), ids=lambda command: re.sub(r"\W+", "-", command))
def test_the_other_pages_name_what_exists(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    program, *arguments = words_of(command, tmp_path)
    if program in OTHERS:
        return
    if program == "torchrun":
        while arguments[0].startswith("--"):
            assert arguments.pop(0).partition("=")[0] in TORCHRUN
        program = "python"
    name = arguments.pop(0)
    if program == "python" and name.startswith("scripts/"):
        text = (PROJECT / name).read_text(encoding="utf-8")
        if "def build_parser(" in text:
            accepted(runpy.run_path(str(PROJECT / name))["build_parser"](), arguments)
        else:
            assert [word for word in arguments if word.startswith("--") and f'"{word}"' not in text] == []
    elif (program, name) in (("python", "mambair/train.py"), ("mambair", "train")):
        run = parse_run_arguments(arguments, "mambair train", "")
        parse_train_options(run.opt, force_yml=run.force_yml, debug=run.debug)
    elif (program, name) in (("python", "mambair/test.py"), ("mambair", "test")):
        run = accepted(build_test_parser(), arguments)
        assert run.opt is not None or run.run is not None
        if run.opt is not None:
            parse_test_options(run.opt, force_yml=run.force_yml, debug=run.debug)
    elif program == "mambair":
        module = importlib.import_module(cli.COMMANDS[name].target.partition(":")[0])
        accepted(module.build_parser(), arguments)
    else:
        pytest.fail(f"a kind of command that this test does not know: {command}")


@pytest.mark.parametrize("scale", [2, 4])
def test_selfexsr_is_taken_as_it_is(scale: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file in benchmarks.md pairs the images of that archive, and leaves out those of other methods."""
    for name in ("Set5", "Set14", "BSD100", "Urban100"):
        folder = tmp_path / "SelfExSR" / "data" / name / f"image_SRF_{scale}"
        for size, kind in ((24, "HR"), (24 // scale, "LR"), (24, "bicubic"), (24, "SRCNN")):
            for number in (1, 2):
                write_image(folder / f"img_{number:03d}_SRF_{scale}_{kind}.png", np.zeros((size, size, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    forced = "datasets=" + selfexsr().replace("SRF_2", f"SRF_{scale}")
    options = parse_test_options(PROJECT / "options" / "test" / f"SR_x{scale}.yml", force_yml=[forced])
    datasets = build_val_datasets(options)
    assert list(datasets) == ["Set5", "Set14", "B100", "Urban100"]
    for dataset in datasets.values():
        assert len(dataset) == 2
        assert [tuple(dataset[0][key].shape[1:]) for key in ("gt", "lq")] == [(24, 24), (24 // scale, 24 // scale)]
