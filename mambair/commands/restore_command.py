"""`mambair restore`: any photo, folder or video, with no option file."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from mambair.commands.exit_codes import OK, SOME_FAILED, reports_user_errors
from mambair.commands.restore_inputs import SAME_FORMAT, Failure, plan_jobs
from mambair.commands.restore_run import Outcome, RestoreRun, split_finished
from mambair.imaging.photo import PHOTO_EXTENSIONS
from mambair.models.restorer import load_model
from mambair.models.weights_source import TASKS
from mambair.runtime.log_setup import console, setup_logging

logger = logging.getLogger(__name__)

DESCRIPTION = """\
Restore photos and videos. Network, task, scale and all hyperparameters are read off the weights.

Results go to the folder after -o under the names of the sources; folders keep their structure. Depth (8 or 16 bits),
transparency, colour profile and EXIF block are kept. A file that cannot be restored is reported and skipped; then the
exit code is 1. Wrong arguments end with exit code 2 before anything is written."""


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


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `load_model` takes."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--weights",
        metavar="FILE",
        help=".pth or .safetensors file, hf://owner/repo/file, or a name of `mambair weights list`; "
        "default: the weights that come with the package",
    )
    group.add_argument("--task", choices=TASKS, help="what to do, where the weights cannot tell or none are given")
    group.add_argument(
        "--noise", type=positive_argument, metavar="N", help="noise level (sigma) or JPEG quality, likewise"
    )
    group.add_argument(
        "--tile",
        type=tile_argument,
        default="auto",
        metavar="auto|none|published|N",
        help="auto (default): whole if it fits into memory, else the largest tiles that do; N: side in input pixels",
    )
    group.add_argument(
        "--overlap", type=int, metavar="N", help="pixels shared by neighbouring tiles; default: an eighth, at least 16"
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


def build_parser() -> argparse.ArgumentParser:
    """The command line of `mambair restore`."""
    parser = argparse.ArgumentParser(
        "mambair restore", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
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
    group.add_argument("--bits", choices=("same", "8", "16"), default="same", help="bits per channel of PNG and TIFF")
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
    jobs, failures = plan_jobs(arguments.paths, arguments.output, arguments.format, sys.stdin)
    jobs, skipped = split_finished(jobs, skip_existing=arguments.skip_existing, overwrite=arguments.overwrite)
    outcome = Outcome(skipped=skipped, failures=failures)
    for failure in failures:
        logger.error("%s: %s", failure.path, failure.reason)
    if jobs:
        restorer = load_model(
            arguments.weights,
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
        run = RestoreRun(restorer, batch=arguments.batch, bits=arguments.bits, quality=arguments.quality)
        run.run(jobs, outcome)
    print_summary(outcome, arguments.output)
    return SOME_FAILED if outcome.failures else OK


def print_summary(outcome: Outcome, output: Path) -> None:
    """The last lines of a run: how many, how fast, where, and every file that failed."""
    parts = [f"restored {outcome.restored}"]
    if outcome.skipped:
        parts.append(f"skipped {outcome.skipped} that existed")
    if outcome.failures:
        parts.append(f"failed {len(outcome.failures)}")
    speed = f" ({outcome.restored / outcome.seconds:.2f} images/s)" if outcome.restored else ""
    console.print(f"{', '.join(parts)} in {outcome.seconds:.1f} s{speed}; results: {output}", markup=False)
    for failure in outcome.failures:
        _print_failure(failure)


def _print_failure(failure: Failure) -> None:
    console.print(f"  failed: {failure.path}: {failure.reason}", markup=False, soft_wrap=True)
