"""The console script `mambair`: one sub-command for each thing to do, imported only when it is asked for."""

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from mambair import __version__
from mambair.registry import did_you_mean


class Command(NamedTuple):
    """A sub-command."""

    target: str
    """module:function; the function takes the arguments behind the sub-command and returns the exit code."""
    help: str


COMMANDS = {
    "train": Command("mambair.commands.train:main", "train a network from an option file"),
    "test": Command("mambair.commands.test:main", "PSNR and SSIM of networks on data sets"),
    "restore": Command("mambair.commands.restore.command:main", "restore photos, folders and videos"),
    "finetune": Command("mambair.commands.finetune.command:main", "a better network for photos like yours"),
    "options": Command("mambair.commands.options.command:main", "check, show, compare and begin option files"),
    "data": Command("mambair.commands.data.command:main", "check and prepare data sets"),
    "analyze": Command("mambair.commands.analyze:main", "parameters and FLOPs, receptive fields, channel activation"),
    "weights": Command("mambair.commands.weights:main", "list and fetch published weights, convert your own"),
    "export": Command("mambair.commands.export.command:main", "networks as ONNX files, and as torch.export's"),
    "doctor": Command("mambair.commands.doctor:main", "what is installed, what works, how to fix the rest"),
    "demo": Command("mambair.commands.demo:main", "restore images on a web page of this machine"),
}

USER_ERROR = 2


def usage() -> str:
    """The help text."""
    lines = [f"  {name:<10}{command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: mambair COMMAND ...",
            "",
            *lines,
            "",
            "mambair COMMAND --help explains a command; mambair --version prints the version.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command; returns its exit code, 2 for an unknown one."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(usage())
        return 0 if arguments else USER_ERROR
    if name == "--version":
        print(f"mambair {__version__}")
        return 0
    if name not in COMMANDS:
        print(f"error: mambair: no command '{name}'{did_you_mean(name, COMMANDS)}\n{usage()}", file=sys.stderr)
        return USER_ERROR
    module, _, function = COMMANDS[name].target.partition(":")
    return getattr(importlib.import_module(module), function)(arguments[1:])
