"""`mambair test`: PSNR, SSIM and other metrics of one or several networks."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from mambair.commands.exit_codes import reports_user_errors
from mambair.commands.options.check import all_mistakes_told, refuse_mistakes
from mambair.commands.runs_together import run_together
from mambair.commands.tested_networks import networks_of_run, with_weights
from mambair.engine.evaluate.checkpoint_curve import write_checkpoint_curve
from mambair.engine.evaluate.run import Tester
from mambair.errors import UserError
from mambair.options import TestOptions, add_run_arguments, parse_test_options, run_arguments
from mambair.runtime.distributed import ProcessGroup
from mambair.runtime.log_setup import console
from mambair.runtime.run_folders import claimed_results

DESCRIPTION = (
    "Test networks on the data sets of an option file, or those of a run on its own. Results go to results/<name>."
)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="mambair test", description=DESCRIPTION, allow_abbrev=False)
    add_run_arguments(parser, is_required=False, resumes=False)
    parser.add_argument(
        "--weights", nargs="+", default=[], metavar="FILE", help="test these instead of what the option file names"
    )
    parser.add_argument(
        "--run", type=Path, metavar="FOLDER", help="experiments/<name>: its network, on its validation sets or -opt's"
    )
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        default=[],
        metavar="ITERATION",
        help="of --run: iterations, best, latest, or all for a curve (default: the best)",
    )
    parser.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="further option files; their networks are tested too, and stand in the same table",
    )
    return parser


def files_of(namespace: argparse.Namespace) -> list[TestOptions]:
    """What the command line asks to test, one for each network."""
    arguments = run_arguments(namespace)

    def parse(path: Path) -> TestOptions:
        return parse_test_options(path, force_yml=arguments.force_yml, debug=arguments.debug, plugins=arguments.plugins)

    given = None if namespace.opt is None else parse(namespace.opt)
    if namespace.run is not None:
        if namespace.weights:
            raise UserError("--weights: leave it out with --run, which tests the run's own weights")
        if given is None and arguments.force_yml:
            raise UserError("--force_yml: sets options of a file; pass -opt FILE beside --run")
        tested = networks_of_run(namespace.run, namespace.checkpoints, given)
    elif given is None:
        raise UserError("pass -opt FILE, an option file to test, or --run experiments/NAME, a training run")
    elif namespace.checkpoints:
        raise UserError("--checkpoints: are those of a run; pass --run experiments/NAME")
    else:
        tested = with_weights(given, namespace.weights) if namespace.weights else [given]
    return [*tested, *map(parse, namespace.compare)]


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 2 for whatever is wrong with options, data or weights."""
    namespace = build_parser().parse_args(argv)
    arguments = run_arguments(namespace)
    with all_mistakes_told():
        files = files_of(namespace)

    def test(group: ProcessGroup) -> int:
        refuse_mistakes(files)
        tester = Tester(files, group)
        with ExitStack() as claims:
            for options in files if group.rank == 0 else ():
                claims.enter_context(claimed_results(options.path.root, options.name))
            code = tester.run(arguments.debug)
            if namespace.run is not None and group.rank == 0:
                curve = write_checkpoint_curve(tester.candidates[: len(files) - len(namespace.compare)])
                if curve is not None:
                    console.print(f"Over the iterations: {curve}", markup=False)
        return code

    return run_together(arguments, files[0].dist_params, test)
