"""Arguments that several commands take. Nothing here needs PyTorch, so that help and mistakes come at once."""

import argparse
import logging
from pathlib import Path

from mambair.options import add_plugin_argument
from mambair.options.plugins import Plugin, load_installed_plugins, load_plugins
from mambair.weights.tasks import TASKS, Level

logger = logging.getLogger(__name__)


def load_named_plugins(arguments: argparse.Namespace, *, show_traceback: bool = False) -> list[Plugin]:
    """Load the plug-ins of installed packages and of --plugin, before any network is built; returns the latter."""
    for warning in load_installed_plugins():
        logger.warning(warning)
    return load_plugins(arguments.plugins, Path.cwd(), "--plugin", show_traceback=show_traceback)


def tile_argument(text: str) -> str | int | None:
    """auto, none, published or a number, for argparse."""
    if text in ("auto", "published"):
        return text
    if text == "none":
        return None
    if text.isascii() and text.isdigit() and int(text) >= 1:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not auto, none, published or a number of pixels")


def positive_argument(text: str) -> int:
    """A number of at least 1, for argparse."""
    if text.isascii() and text.isdigit() and int(text) >= 1:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not a number of at least 1")


def quality_argument(text: str) -> int:
    """A number from 1 to 100, for argparse."""
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 100:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 to 100")


def task_lines() -> str:
    """Every task with a line on when to use it, for the end of a help text."""
    width = max(map(len, TASKS))
    return "tasks:\n" + "\n".join(f"  {name:{width}}  {task.hint}" for name, task in TASKS.items())


def level_argument(text: str) -> Level:
    """A noise level or JPEG quality, or a range of them (0-55), for argparse."""
    level = Level.parse(text)
    if level is None or level.high < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is neither a number of at least 1 nor a range such as 0-55")
    return level


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `load_model` takes."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--weights",
        metavar="FILE",
        help=".pth, .safetensors or exported .onnx file, hf://owner/repo/file, or a name of `mambair weights list`; "
        "default: those in the package, or fetched before, for --task and --noise",
    )
    add_plugin_argument(group)
    group.add_argument(
        "--task", choices=TASKS, help="what to do: chooses the weights where none are given; default sr, larger"
    )
    group.add_argument(
        "--noise", type=positive_argument, metavar="N", help="strength: sigma of denoise, quality of jpeg"
    )
    group.add_argument(
        "--tile",
        type=tile_argument,
        default="auto",
        metavar="auto|none|published|N",
        help="auto (default): whole if it fits into memory, else the largest tiles that do; N: side in input pixels",
    )
    group.add_argument(
        "--overlap",
        type=int,
        metavar="N",
        help="pixels shared by neighbouring tiles; default: an eighth, 16 to 64, a quarter at most",
    )
    group.add_argument(
        "--ensemble", action="store_true", help="average over 8 orientations (MambaIR+): better, 8x slower"
    )
    group.add_argument(
        "--amp",
        nargs="?",
        const="auto",
        default="none",
        choices=("auto", "none", "bf16", "fp16"),
        help="half precision: faster on GPUs, differs by about one grey level here and there",
    )
    group.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N or mps")
    group.add_argument("--compile", action="store_true", help="torch.compile: pays for many images of one size")
    group.add_argument(
        "--batch", type=positive_argument, default=1, metavar="N", help="photos of one size, or frames, at a time"
    )
