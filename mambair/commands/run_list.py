"""Runs as a list shows them: how far, how good, how long, and the options that set them apart."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mambair.metrics  # noqa: F401  (registers the metrics)
from mambair.analysis.log_lines import read_pieces
from mambair.analysis.run_tables import hours
from mambair.analysis.training_logs import LoggedRun, device_time, join_pieces
from mambair.commands.options.resolved import resolve
from mambair.commands.tested_networks import EFFECTIVE, options_of_run
from mambair.engine.evaluate.tables import MISSING, format_value
from mambair.errors import UserError
from mambair.imaging.headers import printable
from mambair.options import TrainOptions
from mambair.registry import METRICS

SHARED_KEYS = ("name", "path.root", "path.resume_state", "dist_params.", "logger.", "val.pbar", "val.save_img")
"""Keys that say where and how something is written, not what is trained."""

TELLING_KEYS = (".type", ".dataroot_gt")
"""What is always shown of a component or a data set that not all runs have."""


@dataclass
class ListedRun:
    """A line of the list."""

    name: str
    network: str = MISSING
    iterations: str = MISSING
    best: str = MISSING
    hours: str = MISSING
    differs: dict[str, str] = field(default_factory=dict)
    """The options that are not the same in all runs, by key."""


def describe_runs(folders: Sequence[Path]) -> list[ListedRun]:
    """All runs in these folders. Raises UserError where there are none."""
    found = list(dict.fromkeys(run for folder in folders for run in run_folders(folder)))
    if not found:
        places = ", ".join(map(printable, folders))
        raise UserError(f"{places}: no training runs here; pass folders such as experiments")
    listed, settings = [], []
    for folder in found:
        line, values = describe_run(folder)
        listed.append(line)
        settings.append(values)
    readable = [values for values in settings if values]
    keys = list(dict.fromkeys(key for values in readable for key in values if not key.startswith(SHARED_KEYS)))
    apart = [key for key in keys if _sets_apart(key, [values.get(key) for values in readable])]
    for line, values in zip(listed, settings, strict=True):
        line.differs = {key: values[key] for key in apart if key in values}
    return listed


def _sets_apart(key: str, values: Sequence[str | None]) -> bool:
    """Whether a key is worth a line; None is the value in a run whose network, data set or loss has no such key.

    Of a component that only some runs have, what is the same in all of these is told by its type.
    """
    given = {value for value in values if value is not None}
    tells = key.endswith(TELLING_KEYS) and not key.endswith(".io_backend.type")
    return len(given) > 1 or (None in values and tells)


def run_folders(folder: Path) -> Iterable[Path]:
    """The folder itself if it is a run's, or the runs in it, by name."""
    if any(folder.glob(f"{Path(EFFECTIVE).stem}*.yml")):
        return [folder]
    if not folder.is_dir():
        raise UserError(f"{printable(folder)}: no such folder")
    return [child for child in sorted(folder.iterdir()) if any(child.glob(f"{Path(EFFECTIVE).stem}*.yml"))]


def describe_run(folder: Path) -> tuple[ListedRun, dict[str, str]]:
    """What is known of a run, and its options by key; none where they cannot be read."""
    line = ListedRun(folder.name)
    logs = sorted(folder.glob("train_*.log"))
    pieces = [piece for log in logs for piece in read_pieces(log.read_text(encoding="utf-8").splitlines())]
    run = join_pieces(folder.name, pieces)
    if run.network:
        line.network = f"{run.network}\n{run.parameters:,}"
    done = run.stretches[-1].last if run.stretches else 0
    line.iterations = f"{done:,}"
    if any(stretch.pace is not None for stretch in run.stretches):
        line.hours = f"{hours(run.device_seconds(done))} {device_time([run], 'h')}"
    try:
        options = options_of_run(folder)
    except UserError as error:
        line.best = f"options cannot be read: {error}"
        return line, {}
    line.iterations = f"{done:,} of {options.train.total_iter:,}"
    line.best = best_scores(run, options)
    return line, {row.key: row.value for row in resolve(options)}


def best_scores(run: LoggedRun, options: TrainOptions) -> str:
    """The best of each metric on each data set, with its iteration."""
    lines = []
    for dataset, found in run.validations.items():
        for metric in dict.fromkeys(name for scores in found.values() for name in scores):
            values = {iteration: scores[metric] for iteration, scores in found.items() if metric in scores}
            pick = max if is_higher_better(options, metric) else min
            iteration = pick(values, key=lambda each: values[each])
            lines.append(f"{dataset} {metric} {format_value(metric, values[iteration])} at {iteration:,}")
    return "\n".join(lines) or MISSING


def is_higher_better(options: TrainOptions, metric: str) -> bool:
    """The direction of a metric of the run's validation; most are better when higher."""
    block = options.val.metrics.get(metric) if options.val is not None else None
    if block is None or block["type"] not in METRICS:
        return True
    return block.get("better", "higher" if METRICS.get(block["type"]).higher_is_better else "lower") == "higher"
