"""Markdown tables that compare training runs: pace, and scores at equal iterations and at equal device time."""

from collections.abc import Callable, Sequence

from mambair.analysis.log_lines import Memory
from mambair.analysis.training_logs import SECONDS_PER_HOUR, LoggedRun, device_time
from mambair.engine.evaluate.tables import MISSING, format_value
from mambair.runtime.markdown import markdown_table

MANY_HOURS = 0.1


def comparison(runs: Sequence[LoggedRun], datasets: Sequence[str]) -> str:
    """Markdown: the pace of the runs, their scores at equal iterations, where there are any, and at equal device time.

    A dash stands for what a run has no score of.
    """
    shared = sorted(set.intersection(*(set(run.iterations()) for run in runs)))
    seconds = min(run.device_seconds(run.iterations()[-1]) for run in runs)
    unit = device_time(runs, "hours")
    reached = [run.last_within(seconds) for run in runs]
    if shared:
        title, at = f"At equal iterations, {shared[-1]:,}:\n", [shared[-1]] * len(runs)
    else:
        title = "At their last validations, for they were never validated at the same iteration:\n"
        at = [run.iterations()[-1] for run in runs]
    return "\n".join(
        [
            pace_table(runs),
            title,
            score_table(runs, datasets, at),
            f"At equal time of computing, {hours(seconds)} {unit}, the last validation within it:\n",
            score_table(runs, datasets, reached),
        ]
    )


def pace_table(runs: Sequence[LoggedRun]) -> str:
    """What each run was and how fast: device seconds, medians over the log lines."""
    columns: dict[str, Callable[[LoggedRun], str]] = {
        "": lambda run: run.name,
        "network": lambda run: run.network,
        "parameters": lambda run: f"{run.parameters:,}",
        "on": lambda run: "; ".join(map(str, run.devices)),
        "starts": lambda run: str(run.starts),
        device_time(runs, "s/iteration"): lambda run: f"{run.seconds_per_iteration:.3f}",
        "waiting for data": lambda run: f"{run.waiting_per_iteration:.3f}",
        f"images/{device_time(runs, 's')}": lambda run: f"{run.images_per_second:.1f}",
        "memory": lambda run: memory_cell(run.memory),
    }
    return markdown_table([list(columns), *([cell(run) for cell in columns.values()] for run in runs)], words=range(4))


def memory_cell(memory: Memory | None) -> str:
    """What a GPU held, and for how many images at once."""
    if memory is None:
        return MISSING
    images = "" if memory.micro_batch is None else f" ({memory.micro_batch} images per GPU)"
    return f"{memory.gibibytes:.1f} GiB{images}"


def score_table(runs: Sequence[LoggedRun], datasets: Sequence[str], iterations: Sequence[int | None]) -> str:
    """The scores of each run at its iteration; a dash where it has none."""
    metrics = [(dataset, metric) for dataset in datasets for metric in metrics_on(runs, dataset)]
    lines = [
        ["", "iterations", device_time(runs, "hours"), *(f"{dataset} {metric.upper()}" for dataset, metric in metrics)]
    ]
    for run, iteration in zip(runs, iterations, strict=True):
        if iteration is None:
            lines.append([run.name] + [MISSING] * (2 + len(metrics)))
            continue
        scores = [run.validations.get(dataset, {}).get(iteration, {}).get(metric) for dataset, metric in metrics]
        shown = [format_value(metric, score) for (_, metric), score in zip(metrics, scores, strict=True)]
        lines.append([run.name, f"{iteration:,}", hours(run.device_seconds(iteration)), *shown])
    return markdown_table(lines)


def metrics_on(runs: Sequence[LoggedRun], dataset: str) -> list[str]:
    """The metrics that any of the runs was judged by on a data set, in the order of the runs."""
    found = (scores for run in runs for scores in run.validations.get(dataset, {}).values())
    return list(dict.fromkeys(metric for scores in found for metric in scores))


def hours(seconds: float) -> str:
    """With two decimals, or two digits where that would be too coarse."""
    amount = seconds / SECONDS_PER_HOUR
    return f"{amount:.2f}" if amount >= MANY_HOURS else f"{amount:.2g}"
