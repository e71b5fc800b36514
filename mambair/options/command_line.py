"""The arguments that train and test share, as BasicSR users type them."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LAUNCHERS = ("none", "pytorch", "slurm")


@dataclass(frozen=True)
class RunArguments:
    """What the command line says about a run."""

    opt: Path
    """The option file."""
    launcher: str
    """How processes are started: none, pytorch (torchrun) or slurm (srun)."""
    auto_resume: bool
    """Go on from the newest complete checkpoint, if there is one."""
    debug: bool
    """Print, validate and save within the first iterations."""
    local_rank: int
    """Index of this process on its machine, where an old launcher passes it as an argument."""
    force_yml: tuple[str, ...]
    """Options set on the command line, as train:total_iter=100."""
    plugins: tuple[str, ...] = ()
    """Plug-ins to load beside those of the option file."""


def add_run_arguments(parser: argparse.ArgumentParser, is_required: bool = True, resumes: bool = True) -> None:
    """Declare the shared arguments on a parser (made with allow_abbrev=False).

    `is_required`: the option file is; `resumes`: --auto_resume too.
    """
    parser.add_argument("-opt", "--opt", type=Path, required=is_required, metavar="FILE", help="option file (YAML)")
    parser.add_argument(
        "--launcher", choices=LAUNCHERS, default="none", help="pytorch under torchrun, slurm under srun (default: none)"
    )
    if resumes:
        parser.add_argument("--auto_resume", action="store_true", help="go on from the newest complete checkpoint")
    parser.add_argument("--debug", action="store_true", help="print, validate and save within the first iterations")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    add_force_yml(parser)
    add_plugin_argument(parser)


def add_plugin_argument(parser: argparse._ActionsContainer) -> None:
    """Declare --plugin."""
    parser.add_argument(
        "--plugin",
        dest="plugins",
        action="append",
        default=[],
        metavar="FILE",
        help="run a Python file, or import a module, that registers networks, losses, ...; may be repeated",
    )


def add_force_yml(parser: argparse.ArgumentParser) -> None:
    """Declare --force_yml on a parser."""
    parser.add_argument(
        "--force_yml",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY:SUBKEY=VALUE",
        help="set options from here, as train:total_iter=100; several are allowed",
    )


def run_arguments(namespace: argparse.Namespace) -> RunArguments:
    """The shared arguments of a parsed command line."""
    return RunArguments(
        opt=namespace.opt,
        launcher=namespace.launcher,
        auto_resume=getattr(namespace, "auto_resume", False),
        debug=namespace.debug,
        local_rank=namespace.local_rank,
        force_yml=tuple(namespace.force_yml),
        plugins=tuple(namespace.plugins),
    )


def parse_run_arguments(arguments: Sequence[str] | None, program: str, description: str) -> RunArguments:
    """Parse the command line of `program` (sys.argv if `arguments` is None); exits with code 2 on a mistake."""
    parser = argparse.ArgumentParser(prog=program, description=description, allow_abbrev=False)
    add_run_arguments(parser)
    return run_arguments(parser.parse_args(arguments))
