"""`mambair data check`: everything that an option file reads, with a table and a list of all that is wrong."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.markup import escape
from rich.table import Table

import mambair.metrics  # noqa: F401  (registers the metrics)
from mambair.commands.data.findings import find_all
from mambair.commands.data.jobs import default_workers, progress_bar
from mambair.commands.exit_codes import OK, USER_ERROR
from mambair.commands.options.check import all_mistakes_told
from mambair.data.builders import BuildContext, find_images, list_ground_truth
from mambair.data.image_sources import ImageEntry
from mambair.data.loaders import TrainLoader  # noqa: F401  (its module registers every data set)
from mambair.data.pairing import Pair, Problem, inspect_pairs, list_entries
from mambair.errors import UserError
from mambair.options import TestOptions, TrainOptions, parse_options
from mambair.registry import DATASETS, METRICS
from mambair.runtime.log_setup import console


@dataclass
class SectionReport:
    """What was found of one data set."""

    section: str
    name: str
    images: int = 0
    paired: bool = False
    sizes: str = "-"
    channels: str = "-"
    problems: list[str] = field(default_factory=list)
    truth: list[ImageEntry] = field(default_factory=list)
    """Its clean images."""


def check_option_file(
    path: Path, decode: bool = True, against: Sequence[Path] = (), force_yml: Sequence[str] = ()
) -> int:
    """Inspect every image of every data set of a training or test file; prints a table, and then all problems.

    Returns 0, or 2 if there are problems. With `decode` every image is decoded whole, and what may spoil results is
    found too, and told as warnings; otherwise headers are read. `against`: further test files, and folders of images,
    that a training set should share no photos with; `force_yml`: options set on the command line.
    """
    with all_mistakes_told():
        options = parse_options(path, force_yml=force_yml)
    reports = [_inspect(options, section, decode) for section in options.datasets]
    console.print(_table(reports))
    if decode:
        _warn(reports, against)
    problems = [(report.section, problem) for report in reports for problem in report.problems]
    for section, problem in problems:
        console.print(f"{section}: {problem}", markup=False, highlight=False, soft_wrap=True)
    if problems:
        console.print(f"{len(problems)} problems", markup=False)
        return USER_ERROR
    console.print("all images are there, fit together and can be read", markup=False)
    return OK


def _warn(reports: Sequence[SectionReport], against: Sequence[Path]) -> None:
    """Print what is no mistake and may spoil results."""
    sets = {report.section: report.truth for report in reports if report.truth}
    for place in against:
        sets |= dict(_sets_of(place))
    if not any(sets.values()):
        return
    with progress_bar() as progress:
        paths = {entry.path for entries in sets.values() for entry in entries}
        bar = progress.add_task("comparing", total=len(paths))
        findings = find_all(sets, default_workers(), lambda count: progress.advance(bar, count))
    for finding in findings:
        console.print(finding.text(), markup=False, highlight=False, soft_wrap=True)


def _sets_of(place: Path) -> Iterator[tuple[str, list[ImageEntry]]]:
    """The sets of clean images that a test file names, or the one that a folder is."""
    if place.is_dir():
        yield str(place), list_entries([place], "--against")
        return
    options = parse_options(place)
    for key, section in options.datasets.items():
        if key != "train":
            context = BuildContext(options.where, f"datasets.{key}", options.scale, training=False)
            yield f"{place}: datasets.{key}", list_ground_truth(section, context)


def _inspect(options: TrainOptions | TestOptions, key: str, decode: bool) -> SectionReport:
    """Look at the data set under datasets.<key>."""
    report = SectionReport(f"datasets.{key}", options.dataset_name(key))
    section = options.datasets[key]
    context = BuildContext(options.where, f"datasets.{key}", options.scale, training=key == "train")
    DATASETS.get(section.type, context.where("type"))
    try:
        found = find_images(section, context)
    except UserError as error:
        report.problems.extend(str(error).splitlines())
        return report
    judged = _judged(options) if key != "train" and section.dataroot_gt else ()
    requirements = replace(found.requirements, decode=decode, profiles=decode, judged=judged)
    with progress_bar() as progress:
        bar = progress.add_task(report.name, total=len(found.pairs))
        problems = inspect_pairs(found.pairs, requirements, on_progress=lambda count: progress.advance(bar, count))
    report.images = len(found.pairs)
    report.paired = any(pair.lq is not None for pair in found.pairs)
    report.problems.extend(str(problem) for problem in [*found.problems, *problems])
    report.sizes, report.channels = _ranges(found.pairs, problems)
    if section.dataroot_gt:  # a SingleImageDataset has none: its images are low-quality ones
        report.truth = [pair.gt for pair in found.pairs]
    return report


def _judged(options: TrainOptions | TestOptions) -> tuple[tuple[str, int], ...]:
    """The metrics of the file that cannot judge images of every size, each with the smallest side that it can."""
    found = []
    for name, block in (options.val.metrics if options.val is not None else {}).items():
        side = getattr(METRICS.get(block["type"], options.where(f"val.metrics.{name}")), "smallest_side", None)
        border = block.get("crop_border", 0)
        if side is not None and isinstance(border, int):
            found.append((name, side + 2 * border))
    return tuple(found)


def _ranges(pairs: Sequence[Pair], problems: Sequence[Problem]) -> tuple[str, str]:
    """Smallest and largest ground truth, and the numbers of channels, of the images whose headers can be read."""
    bad = {problem.path for problem in problems}
    headers = [pair.gt.header() for pair in pairs if pair.gt.path not in bad]
    if not headers:
        return "-", "-"
    smallest, largest = (pick(headers, key=lambda header: header.height * header.width) for pick in (min, max))
    sizes = dict.fromkeys(f"{header.width}x{header.height}" for header in (smallest, largest))
    channels = sorted({header.channels for header in headers})
    return " to ".join(sizes), ", ".join(map(str, channels))


def _table(reports: Sequence[SectionReport]) -> Table:
    table = Table(title="Data sets", title_justify="left")
    for heading in ("section", "name", "images", "partners", "sizes (width x height)", "channels", "problems"):
        table.add_column(heading)
    for report in reports:
        partners = "on disk" if report.paired else "made, or none"
        row = (report.section, report.name, str(report.images), partners, report.sizes, report.channels)
        table.add_row(*map(escape, row), str(len(report.problems)))
    return table
