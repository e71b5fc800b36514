"""`mambair data select`: the photos of a folder that are good enough to train on, copied, linked or listed."""

import argparse
import re
import shutil
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mambair.commands.data.derive import images_in
from mambair.commands.data.jobs import Job, claimed_folder, default_workers, progress_bar, run_jobs
from mambair.commands.data.metainfo import replaceable_list
from mambair.commands.exit_codes import OK
from mambair.data.origins import jpeg_source
from mambair.errors import UserError
from mambair.imaging.headers import DAMAGE, parse_header, printable
from mambair.runtime.files import atomic_write, write_unless_changed
from mambair.runtime.log_setup import console

FULL_CHROMA = "4:4:4"
SHOWN = 5


@dataclass(frozen=True)
class Wanted:
    """What a photo must be like."""

    long_side: int = 1
    short_side: int = 1
    """Least sides in pixels, whichever way the photo is turned."""
    quality: int = 0
    """Least quality of JPEG files, by their tables; files of other types have none and are taken."""
    full_chroma: bool = False
    """Leave out JPEG files with chroma at less than full resolution, and gray photos."""
    color: bool = False
    """Leave out gray photos."""
    without: frozenset[str] = frozenset()
    """File names to leave out."""


def size_argument(text: str) -> tuple[int, int]:
    """480x320 as (long side, short side), for argparse."""
    found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected two sides such as 480x320, got '{text}'")
    first, second = int(found[1]), int(found[2])
    return max(first, second), min(first, second)


def why_not(path: Path, wanted: Wanted) -> str | None:
    """Why a photo is left out; None for one that is taken."""
    if path.name in wanted.without:
        return "named by --without"
    try:
        data = path.read_bytes()
        header = parse_header(data, path)
        jpeg = jpeg_source(data) if header.format in ("JPEG", "MPO") else None
    except (UserError, *DAMAGE):
        return "cannot be read as an image"
    sides = sorted((header.height, header.width))
    if sides[1] < wanted.long_side or sides[0] < wanted.short_side:
        return f"smaller than {wanted.long_side}x{wanted.short_side} pixels"
    if header.channels < 3 and (wanted.color or wanted.full_chroma):
        return "gray"
    if jpeg is not None and jpeg.quality < wanted.quality:
        return f"JPEG of quality below {wanted.quality}"
    if jpeg is not None and wanted.full_chroma and jpeg.chroma != FULL_CHROMA:
        return "JPEG with reduced chroma"
    return None


def sort_photos(folder: Path, wanted: Wanted, threads: int) -> tuple[list[Path], dict[str, list[Path]]]:
    """The photos of a folder that are wanted, in order of their names, and the others by the reason."""
    photos = images_in(folder)
    taken, left_out = [], defaultdict(list)
    with progress_bar() as progress, ThreadPoolExecutor(threads) as pool:
        bar = progress.add_task("looking", total=len(photos))
        for path, reason in zip(photos, pool.map(partial(why_not, wanted=wanted), photos), strict=True):
            progress.advance(bar)
            if reason is None:
                taken.append(path)
            else:
                left_out[reason].append(path)
    return taken, dict(left_out)


def copy_photo(source: Path, target: Path) -> None:
    """The same bytes under another name; whole or not at all."""
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)


def link_photo(source: Path, target: Path) -> None:
    """A symbolic link to where the photo lies, never in place of a file."""
    if target.is_symlink():
        target.unlink()  # it led elsewhere, or to a photo that is gone
    elif target.exists():
        raise UserError(f"{printable(target)}: is a file, and would become a link; name another folder")
    target.symlink_to(source.resolve())


def put_photos(
    photos: Sequence[Path], source: Path, target: Path, *, link: bool, overwrite: bool, workers: int
) -> None:
    """Copy or link the photos into a folder that has nothing else, or go on with it."""
    settings = {"source": str(source.resolve()), "link": link}
    with claimed_folder(target, "select", settings, overwrite):
        strangers = {entry.name for entry in target.iterdir() if not entry.name.startswith(".")}
        strangers -= {path.name for path in photos}
        if strangers:
            some = ", ".join(map(printable, sorted(strangers)[:3]))
            raise UserError(
                f"{printable(target)}: has {len(strangers)} files that are not selected now ({some}); "
                "name another folder"
            )
        put = link_photo if link else copy_photo
        waiting = [path for path in photos if not (link and (target / path.name).resolve() == path.resolve())]
        jobs = [Job(path, (target / path.name,), partial(put, path, target / path.name)) for path in waiting]
        run_jobs(jobs, "linking" if link else "copying", workers, overwrite)


def write_list(photos: Sequence[Path], path: Path, overwrite: bool) -> None:
    """A file for meta_info_file: one name a line."""
    earlier = replaceable_list(path, overwrite)
    with write_unless_changed(path, earlier) as temporary:
        temporary.write_text("".join(f"{photo.name}\n" for photo in photos), encoding="utf-8")


def run_select(args: argparse.Namespace) -> int:
    """Look at all photos, say what was left out and why, and copy, link or list the others."""
    if args.link and args.output is None:
        raise UserError("--link: says how photos get into a folder; name it with -o")
    long_side, short_side = args.min_size
    wanted = Wanted(long_side, short_side, args.min_quality, args.full_chroma, args.color, frozenset(args.without))
    taken, left_out = sort_photos(args.source, wanted, args.workers)
    total = len(taken) + sum(map(len, left_out.values()))
    absent = wanted.without - {path.name for paths in (taken, *left_out.values()) for path in paths}
    if absent:
        raise UserError(f"--without {printable(min(absent))}: {printable(args.source)} has no image of this name")
    for reason, paths in sorted(left_out.items(), key=lambda item: -len(item[1])):
        names = ", ".join(printable(path.name) for path in paths[: None if args.all_names else SHOWN])
        more = "" if args.all_names or len(paths) <= SHOWN else ", ..."
        console.print(f"left out {len(paths)}, {reason}: {names}{more}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(taken)} of {total} images are selected", markup=False)
    if not taken and (args.output is not None or args.list is not None):
        raise UserError(f"{printable(args.source)}: no image is good enough; nothing was written")
    if args.list is not None:
        write_list(taken, args.list, args.overwrite)
        console.print(f"list: {args.list}", markup=False)
    if args.output is not None:
        put_photos(taken, args.source, args.output, link=args.link, overwrite=args.overwrite, workers=args.workers)
        console.print(f"{'linked' if args.link else 'copied'} into {args.output}", markup=False)
    return OK


def add_select(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", common: argparse.ArgumentParser
) -> None:
    """The command line of `mambair data select`."""
    select = commands.add_parser("select", parents=[common], help="photos that are large and clean enough to train on")
    select.add_argument("source", type=Path, help="folder of photos; sub-folders are not searched")
    select.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="copy them here, bytes as they are")
    select.add_argument("--link", action="store_true", help="make links there instead of copies")
    select.add_argument("--list", type=Path, metavar="FILE", help="write their names, for meta_info_file")
    select.add_argument(
        "--min-size", type=size_argument, default=(1, 1), metavar="WxH", help="least sides, whichever way it is turned"
    )
    select.add_argument(
        "--min-quality", type=int, choices=range(101), default=0, metavar="Q", help="least quality of JPEG files, 0-100"
    )
    select.add_argument("--full-chroma", action="store_true", help="no JPEG files with reduced chroma, no gray photos")
    select.add_argument("--color", action="store_true", help="no gray photos")
    select.add_argument("--without", nargs="+", default=[], metavar="NAME", help="file names to leave out")
    select.add_argument("--all-names", action="store_true", help="name all photos that are left out, not the first few")
    select.set_defaults(run=run_select, workers=default_workers())
