"""`mambair data`: prepare and check data sets.

Commands that need PyTorch import it when they run; the others start without the seconds that it takes.
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

from mambair.commands.data.blocks import block_jobs
from mambair.commands.data.derive import bicubic_jobs, jpeg_jobs, sibling_folder, subimage_jobs
from mambair.commands.data.jobs import claimed_folder, default_workers, progress_bar, run_jobs
from mambair.commands.data.metainfo import write_meta_info
from mambair.commands.data.select import add_select
from mambair.commands.data.sidd import sidd_jobs
from mambair.commands.exit_codes import OK, reports_user_errors
from mambair.errors import UserError
from mambair.imaging.names import printable
from mambair.options.command_line import add_force_yml
from mambair.runtime.log_setup import console

Subcommands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def positive(text: str) -> int:
    """An argument that must be a whole number of at least 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got '{text}'")
    return int(text)


def not_negative(text: str) -> int:
    """An argument that must be a whole number, 0 included."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, got '{text}'")
    return int(text)


def quality(text: str) -> int:
    """A JPEG quality."""
    if positive(text) > 100:
        raise argparse.ArgumentTypeError(f"expected a quality from 1 to 100, got '{text}'")
    return int(text)


def make_lr(args: argparse.Namespace) -> int:
    """Bicubic low resolution, MATLAB-equal."""
    output = args.output or sibling_folder(args.folder, "LR_bicubic")
    cropped = args.cropped_hr
    for scale in args.scale:
        hr_folder = None if cropped is None else (cropped / f"X{scale}" if len(args.scale) > 1 else cropped)
        jobs = bicubic_jobs(args.folder, output, scale, args.filename_tmpl, hr_folder)
        settings = {"source": str(args.folder.resolve()), "scale": scale, "template": args.filename_tmpl}
        with ExitStack() as claims:
            for folder in filter(None, (output / f"X{scale}", hr_folder)):
                claims.enter_context(claimed_folder(folder, "lr", settings, args.overwrite))
            run_jobs(jobs, f"x{scale}", args.workers, args.overwrite)
    console.print(f"written to {output}", markup=False)
    return OK


def make_jpeg(args: argparse.Namespace) -> int:
    """JPEG files of given qualities."""
    output = args.output or sibling_folder(args.folder, "JPEG")
    for level in args.quality:
        jobs = jpeg_jobs(args.folder, output, level, args.channels)
        settings = {"source": str(args.folder.resolve()), "quality": level, "channels": args.channels}
        with claimed_folder(output / f"q{level}", "jpeg", settings, args.overwrite):
            run_jobs(jobs, f"quality {level}", args.workers, args.overwrite)
    console.print(f"written to {output}", markup=False)
    return OK


def make_subimages(args: argparse.Namespace) -> int:
    """Overlapping crops."""
    if args.output.resolve() == args.folder.resolve():
        raise UserError(
            f"{printable(args.output)}: holds the images that are cropped; name another folder for the crops"
        )
    jobs = subimage_jobs(args.folder, args.output, args.crop_size, args.step, args.threshold, args.scale)
    keys = ("crop_size", "step", "threshold", "scale")
    settings = {"source": str(args.folder.resolve()), **{key: getattr(args, key) for key in keys}}
    with claimed_folder(args.output, "subimages", settings, args.overwrite):
        run_jobs(jobs, "sub-images", args.workers, args.overwrite)
    return OK


def make_sidd(args: argparse.Namespace) -> int:
    """SIDD's training crops or validation blocks."""
    if args.source.suffix.lower() == ".mat":
        jobs = block_jobs(args.source, args.output)
        settings = {"source": str(args.source.resolve())}
    else:
        jobs = sidd_jobs(args.source, args.output, args.crop_size, args.step)
        settings = {"source": str(args.source.resolve()), "crop_size": args.crop_size, "step": args.step}
    with claimed_folder(args.output, "sidd", settings, args.overwrite):
        run_jobs(jobs, "SIDD", args.workers, args.overwrite)
    return OK


def make_lmdb(args: argparse.Namespace) -> int:
    """Build or verify an LMDB."""
    from mambair.commands.data.derive import images_in
    from mambair.data.lmdb_store import build_lmdb, verify_lmdb

    if args.verify:
        if args.output is not None:
            raise UserError("--verify takes the database alone")
        with progress_bar() as progress:
            bar = progress.add_task("verifying", total=None)
            count = verify_lmdb(args.source, decode=True, on_progress=lambda n: progress.advance(bar, n))
        console.print(f"{args.source}: all {count} images are there and decode", markup=False)
        return OK
    output = args.output or args.source.with_name(f"{args.source.name}.lmdb")
    with progress_bar() as progress:
        bar = progress.add_task("storing", total=len(images_in(args.source)))
        count = build_lmdb(
            args.source,
            output,
            png_level=args.png_level,
            workers=args.workers,
            on_progress=lambda n: progress.advance(bar, n),
        )
    console.print(f"{output}: {count} images stored and verified", markup=False)
    return OK


def make_meta_info(args: argparse.Namespace) -> int:
    """A list of images and sizes."""
    count = write_meta_info(args.folder, args.output, args.overwrite)
    console.print(f"{args.output}: {count} images", markup=False)
    return OK


def make_check(args: argparse.Namespace) -> int:
    """Everything that an option file reads."""
    from mambair.commands.data.check import check_option_file

    return check_option_file(args.opt, decode=not args.headers_only, against=args.against, force_yml=args.force_yml)


def make_submission(args: argparse.Namespace) -> int:
    """Files for the servers of SIDD and DND."""
    from mambair.commands.data.submission import submit_dnd, submit_sidd
    from mambair.inference.restorer import load_model

    restorer = load_model(args.weights, device=args.device)
    if args.benchmark == "sidd":
        submit_sidd(restorer, args.source, args.output, args.method, args.overwrite)
    else:
        settings = {"source": str(args.source.resolve()), "weights": str(args.weights)}
        with claimed_folder(args.output, "submission", settings, args.overwrite):
            submit_dnd(restorer, args.source, args.output, args.overwrite)
    return OK


def build_parser() -> argparse.ArgumentParser:
    """The command line of `mambair data`."""
    parser = argparse.ArgumentParser(prog="mambair data", description="Prepare and check data sets.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--workers", type=positive, default=default_workers(), help="processes (default: all cores)")
    common.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    _add_image_commands(commands, common)
    _add_set_commands(commands, common)
    return parser


def _add_image_commands(commands: Subcommands, common: argparse.ArgumentParser) -> None:
    """Commands that make images of images."""
    lr = commands.add_parser("lr", parents=[common], help="bicubic low resolution, equal to MATLAB's imresize")
    lr.add_argument("folder", type=Path, help="ground-truth images, such as datasets/Set14/HR")
    lr.add_argument("--scale", type=int, nargs="+", choices=(2, 3, 4, 8), default=[2, 3, 4])
    lr.add_argument("--output", type=Path, help="gets X2, X3, X4 (default: LR_bicubic beside the folder)")
    lr.add_argument("--filename-tmpl", default="{}x{scale}", help="names of the results (default: {}x{scale})")
    lr.add_argument("--cropped-hr", type=Path, help="also write the images cropped to a multiple of the scale")
    lr.set_defaults(run=make_lr)

    jpeg = commands.add_parser("jpeg", parents=[common], help="JPEG files of given qualities")
    jpeg.add_argument("folder", type=Path, help="clean images")
    jpeg.add_argument("--quality", type=quality, nargs="+", default=[10, 20, 30, 40])
    jpeg.add_argument("--channels", choices=("color", "gray", "y"), default="color", help="y is MATLAB's luma")
    jpeg.add_argument("--output", type=Path, help="gets q10, q20, ... (default: JPEG beside the folder)")
    jpeg.set_defaults(run=make_jpeg)

    crops = commands.add_parser("subimages", parents=[common], help="overlapping crops, for faster reading")
    crops.add_argument("folder", type=Path)
    crops.add_argument("output", type=Path)
    crops.add_argument("--crop-size", type=positive, default=480, help="side, in ground-truth pixels (480)")
    crops.add_argument("--step", type=positive, default=240, help="from one crop to the next (240)")
    crops.add_argument("--threshold", type=not_negative, default=0, help="drop rests of up to so many pixels (0)")
    crops.add_argument("--scale", type=positive, default=1, help="of a folder of low-quality partners (1)")
    crops.set_defaults(run=make_subimages)

    sidd = commands.add_parser("sidd", parents=[common], help="SIDD: training crops, or blocks of a .mat file as PNG")
    sidd.add_argument("source", type=Path, help="folder SIDD_Medium_Srgb, or ValidationNoisyBlocksSrgb.mat")
    sidd.add_argument("output", type=Path, help="gets input_crops and target_crops")
    sidd.add_argument("--crop-size", type=positive, default=512)
    sidd.add_argument("--step", type=positive, default=384)
    sidd.set_defaults(run=make_sidd)


def _add_set_commands(commands: Subcommands, common: argparse.ArgumentParser) -> None:
    """Commands about whole data sets."""
    add_select(commands, common)
    check = commands.add_parser("check", help="check all data that an option file reads")
    check.add_argument("-opt", "--opt", type=Path, required=True, help="a training or test option file")
    check.add_argument("--headers-only", action="store_true", help="do not decode the images, and warn of nothing")
    check.add_argument(
        "--against",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="test files, or folders of images: warn of photos that the training set shares with them",
    )
    add_force_yml(check)
    check.set_defaults(run=make_check)

    lmdb = commands.add_parser("lmdb", parents=[common], help="build or verify an LMDB of a folder's images")
    lmdb.add_argument("source", type=Path, help="folder of images; with --verify, the database")
    lmdb.add_argument("output", type=Path, nargs="?", help="database folder (default: <folder>.lmdb)")
    lmdb.add_argument("--verify", action="store_true", help="decode everything that a database holds")
    lmdb.add_argument("--png-level", type=int, choices=range(10), help="store as PNG of this level, not as it is")
    lmdb.set_defaults(run=make_lmdb)

    meta = commands.add_parser("metainfo", parents=[common], help="list images and sizes for meta_info_file")
    meta.add_argument("folder", type=Path)
    meta.add_argument("output", type=Path, help="text file")
    meta.set_defaults(run=make_meta_info)

    submission = commands.add_parser("submission", parents=[common], help="files for the SIDD and DND servers")
    submission.add_argument("benchmark", choices=("sidd", "dnd"))
    submission.add_argument("source", type=Path, help="BenchmarkNoisyBlocksSrgb.mat, or DND's folder with info.mat")
    submission.add_argument("output", type=Path, help="SubmitSrgb.mat, or a folder")
    submission.add_argument("--weights", required=True, help="trained denoiser")
    submission.add_argument("--device", default="auto")
    submission.add_argument("--method", default="MambaIR", help="name in the submission (SIDD)")
    submission.set_defaults(run=make_submission)


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run a `mambair data` command; returns the exit code."""
    args = build_parser().parse_args(argv)
    return args.run(args)
