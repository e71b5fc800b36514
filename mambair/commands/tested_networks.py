"""What `mambair test` tests: an option file with its own or with other weights, and the checkpoints of a run."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mambair.errors import UserError
from mambair.imaging.headers import printable
from mambair.options import TestOptions, TrainOptions, parse_train_options
from mambair.options.sections import ValOptions
from mambair.registry import did_you_mean

EFFECTIVE = "effective_options.yml"
_UNSAFE = re.compile(r"[^\w.+-]")


@dataclass(frozen=True)
class Checkpoint:
    """Weights that a run left."""

    label: str
    """The iteration, 'best' or 'latest'."""
    path: Path

    @property
    def iteration(self) -> int | None:
        """None for the best and the latest."""
        return int(self.label) if self.label.isdecimal() else None


def with_weights(options: TestOptions, weights: Sequence[str]) -> list[TestOptions]:
    """The file once for each of several weights, under names that tell them apart."""
    if len(weights) == 1:
        return [replaced(options, weights=Path(weights[0]))]
    names = [safe_name(weight) for weight in distinct_names([Path(weight) for weight in weights])]
    return [
        replaced(options, weights=Path(weight), name=f"{options.name}_{name}")
        for weight, name in zip(weights, names, strict=True)
    ]


def distinct_names(files: Sequence[Path]) -> list[str]:
    """The files' names without ending, with as many folders in front as tell them apart.

    Raises UserError where a file is given twice.
    """
    for depth in range(1, 1 + max(len(file.parts) for file in files)):
        names = ["_".join(Path(*file.parts[-depth:]).with_suffix("").parts).replace("_models_", "_") for file in files]
        if len(set(names)) == len(names):
            return names
    raise UserError("--weights: the same file is given twice")


def safe_name(name: str) -> str:
    """A name that can be a folder's."""
    return _UNSAFE.sub("_", name).strip("._") or "weights"


def replaced(options: TestOptions, *, weights: Path, name: str | None = None) -> TestOptions:
    """The same file with other weights, whose own choice of parameters counts."""
    path = options.path.model_copy(update={"pretrain_network_g": weights, "param_key_g": None})
    changes = {"path": path, **({} if name is None else {"name": name})}
    return options.model_copy(update=changes).with_source(options.source)


def networks_of_run(folder: Path, wanted: Sequence[str], protocol: TestOptions | None) -> list[TestOptions]:
    """Test options for checkpoints of experiments/<name>.

    `wanted` are iterations, 'best', 'latest' or 'all' (every iteration there is); none means the best, or else the
    newest. Data sets, metrics and tiles are those of `protocol`, or the run's own validation. Raises UserError for a
    folder that is no run, checkpoints that are not there, and a run without validation sets where it needs them.
    """
    options = options_of_run(folder)
    found = checkpoints_of(folder)
    chosen = choose(folder, found, wanted)
    base = protocol_of_run(folder, options) if protocol is None else protocol
    base = base.model_copy(update={"network_g": options.network_g, "scale": options.scale}).with_source(base.source)
    name = options.name if protocol is None else f"{protocol.name}_{options.name}"
    return [replaced(base, weights=each.path, name=f"{name}_{each.label}") for each in chosen]


def options_of_run(folder: Path) -> TrainOptions:
    """The options that a run was last started with."""
    files = sorted(folder.glob("effective_options*.yml"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise UserError(f"{printable(folder)}: holds no {EFFECTIVE}; pass the folder of a run, experiments/<name>")
    return parse_train_options(files[-1])


def checkpoints_of(folder: Path) -> list[Checkpoint]:
    """All weights in a run's folder: iterations in order, then the best and the latest."""
    labels = {file.stem.removeprefix("net_g_"): file for file in (folder / "models").glob("net_g_*.pth")}
    iterations = sorted((label for label in labels if label.isdecimal()), key=int)
    order = [*iterations, *(label for label in ("best", "latest") if label in labels)]
    return [Checkpoint(label, labels[label]) for label in order]


def choose(folder: Path, found: Sequence[Checkpoint], wanted: Sequence[str]) -> list[Checkpoint]:
    """The checkpoints that `wanted` names."""
    if not found:
        raise UserError(f"{printable(folder / 'models')}: holds no net_g_*.pth yet")
    by_label = {each.label: each for each in found}
    iterations = [each for each in found if each.iteration is not None]
    if not wanted:
        return [by_label.get("best") or (iterations or list(found))[-1]]
    chosen: dict[str, Checkpoint] = {}
    for label in wanted:
        if label == "all":
            chosen |= {each.label: each for each in iterations or found}
        elif label in by_label:
            chosen[label] = by_label[label]
        else:
            hint = did_you_mean(label, by_label) or f"; there are: {', '.join(by_label)}"
            raise UserError(f"--checkpoints {label}: {printable(folder)} has none of this name{hint}")
    return list(chosen.values())


def protocol_of_run(folder: Path, options: TrainOptions) -> TestOptions:
    """A test file that says what the run's own validation does."""
    datasets = {phase: section for phase, section in options.datasets.items() if phase != "train"}
    if not datasets or options.val is None or not options.val.metrics:
        raise UserError(f"{printable(folder)}: this run has no validation set with metrics; pass -opt FILE to test on")
    val = ValOptions(**{**options.val.model_dump(), "val_freq": None, "patience": None})
    shared = {key: getattr(options, key) for key in TestOptions.model_fields.keys() & TrainOptions.model_fields.keys()}
    fields = {**shared, "datasets": datasets, "val": val}
    return TestOptions.model_construct(**fields).with_source(options.source)
