"""The scores of a run's checkpoints over its iterations, as tests of them found."""

import re
from collections.abc import Sequence
from pathlib import Path

from mambair.engine.evaluate.run import Candidate
from mambair.engine.evaluate.tables import write_json

FILE = "checkpoints.json"
_ITERATION = re.compile(r"net_g_(\d+)")


def write_checkpoint_curve(candidates: Sequence[Candidate]) -> Path | None:
    """Write {data set: {metric: [[iteration, mean], ...]}} into the results of the last candidate; None below two.

    Candidates whose weights are not those of an iteration (the best ones, the latest) are left out.
    """
    curve: dict[str, dict[str, list[tuple[int, float]]]] = {}
    tested = [(iteration_of(candidate), candidate) for candidate in candidates]
    points = sorted(
        ((iteration, candidate) for iteration, candidate in tested if iteration is not None), key=lambda item: item[0]
    )
    if len(points) < 2:
        return None
    for iteration, candidate in points:
        for dataset, scores in candidate.scores.items():
            for metric, mean in scores.means().items():
                curve.setdefault(dataset, {}).setdefault(metric, []).append((iteration, mean))
    options = candidates[-1].options
    path = Path(options.path.root) / "results" / options.name / FILE
    write_json(path, curve)
    return path


def iteration_of(candidate: Candidate) -> int | None:
    """The iteration that a candidate's weights were saved at."""
    weights = candidate.options.path.pretrain_network_g
    match = _ITERATION.fullmatch(weights.stem) if weights is not None else None
    return int(match[1]) if match else None
