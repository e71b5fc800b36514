"""`mambair analyze curves` and `mambair analyze runs`: training runs compared, from their folders alone."""

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from mambair.analysis.figures import AGAINST, require_matplotlib, save_training_figure
from mambair.analysis.run_tables import comparison
from mambair.analysis.training_logs import LoggedRun, read_run
from mambair.commands.run_list import describe_runs
from mambair.errors import UserError
from mambair.runtime.files import atomic_write
from mambair.runtime.log_setup import console


def add_run_parsers(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare both analyses.

    Runs may have been interrupted and continued as often as need be, on different numbers of GPUs too. GPU hours are
    hours times GPUs (on the CPU: hours of one process, or process hours of several). They count what iterations took,
    less waiting for data; validation and saving are left out, and the first log line of a start that goes on counts
    with the median pace, for it holds compiling that a run in one piece does once.
    """
    curves = kinds.add_parser(
        "curves", help="validation of training runs against iterations and hours: tables, and a figure"
    )
    curves.add_argument("runs", nargs="+", metavar="[NAME=]FOLDER", help="experiments/<name>, and what to call it")
    curves.add_argument("--dataset", help="data set of the figure; default: the one that most runs share")
    curves.add_argument("--metric", default="psnr", help="metric of the figure (default %(default)s)")
    curves.add_argument(
        "--reference",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="value of the metric to draw a horizontal line at, such as bicubic=33.67",
    )
    curves.add_argument(
        "--against",
        choices=AGAINST,
        help="draw this alone, such as iterations of runs that shared a GPU, whose hours say little (default: both)",
    )
    curves.add_argument("-o", "--figure", type=Path, metavar="FILE", help=".png, .pdf or .svg")
    curves.add_argument("--table", type=Path, metavar="FILE.md", help="write the tables here too")
    runs = kinds.add_parser("runs", help="all training runs: what sets them apart, best scores, hours")
    runs.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="folders of runs, or of folders (default: experiments)"
    )


def run_curves(arguments: argparse.Namespace) -> None:
    """Print the tables of the runs, draw their curves if asked to."""
    if arguments.figure is not None:
        require_matplotlib()
    references = read_references(arguments.reference)
    runs = [read_named(run) for run in arguments.runs]
    datasets = list(dict.fromkeys(name for run in runs for name in run.validations))
    table = comparison(runs, datasets)
    console.print(table, markup=False, highlight=False, soft_wrap=True)
    if arguments.table is not None:
        with atomic_write(arguments.table) as temporary:
            temporary.write_text(table, encoding="utf-8")
        console.print(f"table: {arguments.table}", markup=False)
    if arguments.figure is None:
        return
    dataset = chosen_dataset(runs, arguments.dataset)
    drawn = [run for run in runs if has_metric(run, dataset, arguments.metric)]
    if not drawn:
        raise UserError(f"--metric {arguments.metric}: no run was validated on {dataset} by it")
    for run in runs:
        if run not in drawn:
            console.print(f"{run.name}: has no {arguments.metric} on {dataset}, and is not drawn", markup=False)
    against = AGAINST if arguments.against is None else (arguments.against,)
    save_training_figure(arguments.figure, drawn, dataset, references, arguments.metric, against)
    console.print(f"figure: {arguments.figure}", markup=False)


def chosen_dataset(runs: Sequence[LoggedRun], wanted: str | None) -> str:
    """The data set to draw. Raises UserError for one that no run was validated on."""
    counts = Counter(name for run in runs for name in run.validations)
    if wanted is None:
        return max(counts, key=lambda name: counts[name])  # the first of those that most runs share
    if wanted not in counts:
        raise UserError(f"--dataset {wanted}: no run was validated on it; there are: {', '.join(counts)}")
    return wanted


def has_metric(run: LoggedRun, dataset: str, metric: str) -> bool:
    """Whether a run was always judged by a metric on a data set."""
    found = run.validations.get(dataset, {})
    return bool(found) and all(metric in scores for scores in found.values())


def split_named(arguments: Sequence[str], option: str, value: str) -> dict[str, str]:
    """Values by the names that NAME=VALUE gives them; UserError, which calls them `value`, where one does not fit."""
    named: dict[str, str] = {}
    for argument in arguments:
        name, _, given = argument.partition("=")
        if not (name and given):
            raise UserError(f"{option} {argument}: write NAME={value}")
        if name in named:
            raise UserError(f"{option} {argument}: the name {name} is given twice; choose another")
        named[name] = given
    return named


def read_named(argument: str) -> LoggedRun:
    """The run that FOLDER or NAME=FOLDER tells of."""
    name, separator, folder = argument.partition("=")
    if not separator or Path(argument).is_dir():
        return read_run(Path(argument))
    return read_run(Path(folder), name)


def read_references(arguments: Sequence[str]) -> dict[str, float]:
    """Values by the names of the lines that show them."""
    references = {}
    wanted = "VALUE, a number such as bicubic=33.67"
    for name, given in split_named(arguments, "--reference", wanted).items():
        try:
            references[name] = float(given)
        except ValueError:
            references[name] = math.nan
        if not math.isfinite(references[name]):
            raise UserError(f"--reference {name}={given}: write NAME={wanted}")
    return references


def run_list(arguments: argparse.Namespace) -> None:
    """Print a table of all runs, and what they share."""
    folders = arguments.folders or [Path("experiments")]
    listed = describe_runs(folders)
    table = Table("run", "network", "iterations", "best", "hours", "options that differ", show_lines=True)
    for run in listed:
        table.add_row(*(escape(cell) for cell in (run.name, run.network, run.iterations, run.best, run.hours)),
                      escape("\n".join(f"{key}: {value}" for key, value in run.differs.items())))  # fmt: skip
    console.print(table, soft_wrap=not console.is_terminal)
