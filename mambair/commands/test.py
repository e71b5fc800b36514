"""`mambair test`: PSNR, SSIM and other metrics of one or several networks."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from mambair.commands.exit_codes import reports_user_errors
from mambair.commands.options.check import refuse_mistakes
from mambair.commands.runs_together import run_together
from mambair.engine.evaluate.run import Tester
from mambair.options import add_run_arguments, parse_test_options, run_arguments
from mambair.runtime.distributed import ProcessGroup
from mambair.runtime.run_folders import claimed_results

DESCRIPTION = "Test a network on the data sets of an option file. Results go to results/<name>."


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="mambair test", description=DESCRIPTION, allow_abbrev=False)
    add_run_arguments(parser, resumes=False)
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


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 2 for whatever is wrong with options, data or weights."""
    namespace = build_parser().parse_args(argv)
    arguments = run_arguments(namespace)
    files = [
        parse_test_options(path, force_yml=arguments.force_yml, debug=arguments.debug, plugins=arguments.plugins)
        for path in (arguments.opt, *namespace.compare)
    ]

    def test(group: ProcessGroup) -> int:
        refuse_mistakes(files)
        tester = Tester(files, group)
        with ExitStack() as claims:
            for options in files if group.rank == 0 else ():
                claims.enter_context(claimed_results(options.path.root, options.name))
            return tester.run(arguments.debug)

    return run_together(arguments, files[0].dist_params, test)
