"""`mambair restore`: any photo, folder or video, with no option file."""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mambair.commands.arguments import add_model_arguments, load_named_plugins, quality_argument, task_lines
from mambair.commands.exit_codes import OK, SOME_FAILED, reports_user_errors
from mambair.commands.restore.advice import advise
from mambair.commands.restore.inputs import SAME_FORMAT, plan_jobs
from mambair.commands.restore.outcome import Outcome
from mambair.commands.restore.results import Results
from mambair.commands.restore.run import RestoreRun, make_folder
from mambair.imaging.photo import PHOTO_EXTENSIONS
from mambair.runtime.freed_memory import keep_freed_memory
from mambair.runtime.log_setup import console, setup_logging
from mambair.weights.sources import find_weights

if TYPE_CHECKING:
    from mambair.inference.restorer import Restorer

logger = logging.getLogger(__name__)

DESCRIPTION = """\
Restore photos and videos. Network, task, scale and all hyperparameters are read off the weights. Without --weights,
--task chooses among those in the package and those that were fetched; without either, the network in the package
doubles width and height of clean photos.

Results go to the folder after -o under the names of the sources; folders keep their structure. Depth (8 or 16 bits),
transparency, colour profile and EXIF block are kept. A file that cannot be restored is reported and skipped; then the
exit code is 1. Wrong arguments end with exit code 2 before anything is written."""


def build_parser() -> argparse.ArgumentParser:
    """The command line of `mambair restore`."""
    parser = argparse.ArgumentParser(
        "mambair restore",
        description=DESCRIPTION,
        epilog=task_lines(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="image, video, folder (recursive), pattern, or - for a list on stdin"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("restored"), help="folder, or the file for a single image"
    )
    add_model_arguments(parser)
    group = parser.add_argument_group("results")
    formats = sorted(extension.removeprefix(".") for extension in PHOTO_EXTENSIONS)
    group.add_argument(
        "--format", choices=(SAME_FORMAT, *formats), default=SAME_FORMAT, help="file type of the results"
    )
    group.add_argument(
        "--bits",
        choices=("same", "8", "16"),
        default="same",
        help="bits per channel of PNG and TIFF, and of videos, where 10 is what stands for 16",
    )
    group.add_argument("--quality", type=quality_argument, default=95, help="of JPEG and WebP, 1 to 100 (default 95)")
    existing = group.add_mutually_exclusive_group()
    existing.add_argument(
        "--skip-existing", action="store_true", help="leave results that exist; resumes a stopped run"
    )
    existing.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument("--debug", action="store_true", help="print more")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, 1 if files failed, 2 for wrong arguments."""
    arguments = build_parser().parse_args(argv)
    setup_logging(None, 0, arguments.debug)
    # Pillow's on odd tags, with lines of its source; what is wrong with a file's pixels is an error and reported.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    plan = plan_jobs(arguments.paths, arguments.output, arguments.format, sys.stdin)
    results = Results.of_run(arguments.paths, arguments.output, plan.jobs)
    jobs, skipped = results.split_finished(
        plan.jobs, skip_existing=arguments.skip_existing, overwrite=arguments.overwrite
    )
    outcome = Outcome(
        keep_others=arguments.skip_existing,
        on_success=lambda job: results.add(job.target),
        skipped=skipped,
        failures=plan.failures,
    )
    for failure in plan.failures:
        logger.error("%s: %s", failure.path, failure.reason)
    for why, path in plan.left_out:
        outcome.leave_out(why, path)
    if jobs:
        restorer = load_restorer(arguments)
        make_folder(arguments.output.parent if jobs[0].target == arguments.output else arguments.output)
        # Who names weights or a task knows what for.
        adviser = advise if arguments.weights is None and arguments.task is None else None
        run = RestoreRun(
            restorer, batch=arguments.batch, bits=arguments.bits, quality=arguments.quality, adviser=adviser
        )
        run.run(jobs, outcome)
    for line in outcome.summary(arguments.output):
        console.print(line, markup=False, soft_wrap=True)
    return SOME_FAILED if outcome.failures else OK


def load_restorer(arguments: argparse.Namespace) -> "Restorer":
    """The model that the arguments of `add_model_arguments` describe."""
    path = find_weights(arguments.weights, task=arguments.task, noise=arguments.noise)
    # Read when OpenMP's library is loaded. By default its threads wait for each other spinning, and on a busy machine
    # take from each other and from other programs what they need to go on: on two cores that others wanted too (load
    # 5 to 7), a 512x512 photo in tiles of 128 pixels took 132 s of computing in place of 22.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    load_named_plugins(arguments, show_traceback=arguments.debug)
    # Imports PyTorch, which takes seconds: what is wrong with paths and weights has been said by now.
    from mambair.inference.restorer import load_model

    restorer = load_model(
        path,
        device=arguments.device,
        amp=arguments.amp,
        compile=arguments.compile,
        tile=arguments.tile,
        overlap=arguments.overlap,
        ensemble=arguments.ensemble,
        batch=arguments.batch,
        task=arguments.task,
        noise=arguments.noise,
    )
    if restorer.device.type == "cpu":
        keep_freed_memory()
    return restorer
