"""Compare training runs from their logs, and the networks they made on images.

python scripts/results.py curves experiments/A experiments/B --figure curves.png --table table.md
    validation against iterations and against hours of computing; a table at equal iterations and at equal time

python scripts/results.py crops butterfly.png baby.png --weights A=a.pth B=b.pth --figure crops.png
    the images made smaller by MATLAB's bicubic and restored, the busiest crop of each beside the ground truth

Runs may have been interrupted and continued as often as need be. Time is what iterations took, less waiting for data;
validation and saving are left out, and the first log line of a start that goes on counts with the median pace, for it
holds compiling that a run in one piece does once.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mambair.analysis.figures import SECONDS_PER_HOUR, require_matplotlib, save_training_figure
from mambair.analysis.training_logs import LoggedRun, read_run
from mambair.archs.build import build_network
from mambair.archs.weights import load_network
from mambair.commands.exit_codes import OK, reports_user_errors
from mambair.engine.report import MISSING, escape_markdown, format_value
from mambair.errors import UserError
from mambair.imaging.files import read_image, write_image
from mambair.imaging.panels import busiest_crop, panel_row, stack_rows
from mambair.imaging.resize import crop_to_multiple, imresize
from mambair.metrics import calculate_psnr
from mambair.models.restorer import Restorer, find_device
from mambair.runtime.files import atomic_write

CROP = 96
ZOOM = 2


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    curves = actions.add_parser("curves", help="figure and table of training runs")
    curves.add_argument("runs", nargs="+", type=Path, metavar="FOLDER", help="experiments/<name>")
    curves.add_argument("--dataset", help="data set of the figure; default: the first one")
    curves.add_argument("--figure", type=Path, required=True, help=".png, .pdf or .svg")
    curves.add_argument("--table", type=Path, required=True, help=".md")
    crops = actions.add_parser("crops", help="figure of restored crops")
    crops.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="ground truth")
    crops.add_argument("--weights", nargs="+", required=True, metavar="NAME=FILE", help="networks of one scale")
    crops.add_argument("--device", default="auto")
    crops.add_argument("--crop", type=int, default=CROP, help="side in pixels (default %(default)s)")
    crops.add_argument("--zoom", type=int, default=ZOOM, help="times that crops are enlarged (default %(default)s)")
    crops.add_argument("--figure", type=Path, required=True, help=".png")
    return parser


def shared_datasets(runs: Sequence[LoggedRun]) -> list[str]:
    """The data sets that all runs were validated on; UserError if there are none."""
    shared = [name for name in runs[0].validations if all(name in run.validations for run in runs)]
    if not shared:
        raise UserError("the runs were validated on no data set in common; compare others")
    return shared


def write_curves(arguments: argparse.Namespace) -> None:
    """The figure and the table of the runs."""
    require_matplotlib()
    runs = [read_run(folder) for folder in arguments.runs]
    datasets = shared_datasets(runs)
    dataset = arguments.dataset or datasets[0]
    if dataset not in datasets:
        raise UserError(f"--dataset {dataset}: not validated in every run; there are: {', '.join(datasets)}")
    table = comparison(runs, datasets)
    save_training_figure(arguments.figure, runs, dataset)
    with atomic_write(arguments.table) as temporary:
        temporary.write_text(table, encoding="utf-8")
    print(table)
    print(f"written: {arguments.figure}, {arguments.table}")


def comparison(runs: Sequence[LoggedRun], datasets: Sequence[str]) -> str:
    """Markdown: the pace of the runs, their scores at equal iterations and at equal time of computing."""
    shared = sorted(set.intersection(*(set(run.iterations()) for run in runs)))
    if not shared:
        raise UserError("the runs were validated at no iteration in common; give them the same val_freq")
    seconds = min(run.computing_seconds(run.iterations()[-1]) for run in runs)
    reached = [run.last_within(seconds) for run in runs]
    return "\n".join(
        [
            pace_table(runs),
            f"At equal iterations, {shared[-1]:,}:\n",
            score_table(runs, datasets, [shared[-1]] * len(runs)),
            f"At equal time of computing, {hours(seconds)} h, the last validation within it:\n",
            score_table(runs, datasets, reached),
        ]
    )


def pace_table(runs: Sequence[LoggedRun]) -> str:
    """What each run was and how fast."""
    columns: dict[str, Callable[[LoggedRun], str]] = {
        "": lambda run: run.name,
        "network": lambda run: run.network,
        "parameters": lambda run: f"{run.parameters:,}",
        "on": lambda run: ", ".join(run.hardware),
        "starts": lambda run: str(run.starts),
        "s/iteration": lambda run: f"{run.seconds_per_iteration:.3f}",
        "waiting for data": lambda run: f"{run.waiting_per_iteration:.3f}",
        "images/s": lambda run: f"{run.images_per_second:.1f}",
        "memory": lambda run: MISSING if run.memory is None else f"{run.memory:.1f} GiB",
    }
    return markdown([list(columns), *([cell(run) for cell in columns.values()] for run in runs)], words=4)


def score_table(runs: Sequence[LoggedRun], datasets: Sequence[str], iterations: Sequence[int | None]) -> str:
    """The scores of each run at its iteration; a dash where it has none."""
    metrics = [
        (dataset, metric) for dataset in datasets for metric in next(iter(runs[0].validations[dataset].values()))
    ]
    lines = [["", "iterations", "hours", *(f"{dataset} {metric.upper()}" for dataset, metric in metrics)]]
    for run, iteration in zip(runs, iterations, strict=True):
        if iteration is None:
            lines.append([run.name] + [MISSING] * (2 + len(metrics)))
            continue
        scores = [run.validations[dataset][iteration].get(metric) for dataset, metric in metrics]
        shown = [format_value(metric, score) for (_, metric), score in zip(metrics, scores, strict=True)]
        lines.append([run.name, f"{iteration:,}", hours(run.computing_seconds(iteration)), *shown])
    return markdown(lines, words=1)


def hours(seconds: float) -> str:
    return f"{seconds / SECONDS_PER_HOUR:.2f}"


def markdown(lines: Sequence[Sequence[str]], words: int) -> str:
    """A table of a header and rows, the first `words` columns to the left, those of numbers to the right."""
    ruler = ["---"] * words + ["---:"] * (len(lines[0]) - words)
    cells = [[escape_markdown(cell) for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in (cells[0], ruler, *cells[1:]))


def load_named(arguments: Sequence[str], device: str) -> dict[str, Restorer]:
    """Networks by the names that NAME=FILE gives them."""
    models = {}
    for argument in arguments:
        name, separator, path = argument.partition("=")
        if not (name and separator and path):
            raise UserError(f"--weights {argument}: write NAME=FILE")
        models[name] = Restorer(load_any(Path(path)), device=find_device(device))
    if len({model.scale for model in models.values()}) > 1:
        raise UserError("--weights: the networks have different scales; compare those of one")
    return models


def load_any(path: Path):
    """A network of this package, or of spandrel's, from its weights."""
    try:
        return load_network(path)
    except UserError as error:
        if not path.is_file():
            raise
        try:
            return build_network({"type": "spandrel", "path": str(path)})
        except UserError as other:
            raise UserError(f"{error}; and not by spandrel: {other}") from None


def comparison_row(path: Path, models: dict[str, Restorer], size: int, zoom: int) -> Image.Image:
    """Bicubic | each network | ground truth of one image's busiest crop, captioned with PSNR (Y, whole image)."""
    scale = next(iter(models.values())).scale
    truth = crop_to_multiple(read_image(path), scale)
    if min(truth.shape[:2]) < size:
        raise UserError(f"{path}: is smaller than the crop of {size} pixels; pass --crop")
    small = imresize(truth, 1 / scale)
    restored = {"LR, bicubic": imresize(small, scale)}
    restored |= {name: np.asarray(model.restore(small)) for name, model in models.items()}
    panels = {
        f"{name} {calculate_psnr(image, truth, scale, test_y_channel=True):.2f} dB": image
        for name, image in restored.items()
    }
    panels[f"ground truth, {path.stem}"] = truth
    return panel_row(panels, busiest_crop(truth, size, scale), size, zoom)


def write_crops(arguments: argparse.Namespace) -> None:
    """The figure of crops."""
    models = load_named(arguments.weights, arguments.device)
    rows = [comparison_row(path, models, arguments.crop, arguments.zoom) for path in arguments.images]
    write_image(arguments.figure, stack_rows(rows))
    print(f"written: {arguments.figure}")


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    {"curves": write_curves, "crops": write_crops}[arguments.action](arguments)
    return OK


if __name__ == "__main__":
    sys.exit(main())
