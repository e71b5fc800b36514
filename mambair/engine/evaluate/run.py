"""Testing networks on data sets: one table for all of them, and for each a folder with its numbers and images."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mambair.data.contracts import EvaluationDataset
from mambair.data.loaders import build_val_datasets
from mambair.engine.evaluate.html_report import ReportImages, write_html_report
from mambair.engine.evaluate.scoring import Metric, Scores, build_metrics, try_metrics
from mambair.engine.evaluate.tables import ResultTable, Row, make_table, metrics_json, write_json, write_markdown
from mambair.engine.evaluate.validator import Judged, Validator, image_writer, pass_through, upscale_bicubic
from mambair.errors import UserError
from mambair.models.components import build_generator, build_restoration
from mambair.models.restoration_model import RestorationModel
from mambair.options import TestOptions, dump_options
from mambair.runtime.devices import select_device
from mambair.runtime.distributed import ProcessGroup, all_gather_object, from_first_process, is_main_process
from mambair.runtime.log_setup import EarlyLines, console, setup_logging
from mambair.runtime.run_folders import ResultsFolders, prepare_results_folder, save_options
from mambair.runtime.seeding import seed_everything

logger = logging.getLogger(__name__)

COMPARISON = "comparison.md"

SOME_UNREAD = 1
"""Exit code where images could not be read: the others have been judged."""

IMAGE_KEYS = {"task", "noise", "quality", "dataroot_gt", "dataroot_lq", "meta_info_file", "filename_tmpl", "color"}
"""What a data set's section says about its images."""


@dataclass
class Candidate:
    """A network to test, with all that its option file says."""

    options: TestOptions
    model: RestorationModel
    metrics: list[Metric]
    datasets: Mapping[str, EvaluationDataset]
    scores: dict[str, Scores] = field(default_factory=dict)
    images: ReportImages = field(default_factory=ReportImages)
    """What report.html shows."""

    @property
    def row(self) -> Row:
        """Its line in tables."""
        return Row(self.options.name, self.scores)

    @property
    def left_out(self) -> list[str]:
        """A note for each image that is missing in a mean."""
        return [note for name, scores in self.scores.items() for note in scores.notes(name)]


class Tester:
    """Tests the networks of one or several option files and compares them.

    Everything that can be wrong with the files is found out here, before `run` writes anything.
    """

    def __init__(self, files: Sequence[TestOptions], group: ProcessGroup) -> None:
        check_comparable(files)
        self.early_lines = EarlyLines()
        self.group = group
        self.baselines: dict[str, Row] = {}
        seed_everything(files[0].manual_seed, files[0].deterministic)
        self.candidates = [prepare_candidate(options, group) for options in files]

    def run(self, debug: bool = False) -> int:
        """Test, write results/<name>/ for each file, print the table; returns the exit code: 0, or SOME_UNREAD."""
        folders = [make_folders(candidate.options) for candidate in self.candidates]
        setup_logging(folders[0].log, self.group.rank, debug)
        self.early_lines.write_to_file()
        for candidate, folder in zip(self.candidates, folders, strict=True):
            for warning in candidate.options.source.warnings:
                logger.warning(warning)
            self._test(candidate, folder)
        if is_main_process():
            self._report(folders)
        unread = any(scores.unread for candidate in self.candidates for scores in candidate.scores.values())
        return SOME_UNREAD if unread else 0

    def _test(self, candidate: Candidate, folders: ResultsFolders) -> None:
        options = candidate.options
        validator = Validator(candidate.metrics, self.group, options.val.pbar)
        for name, dataset in candidate.datasets.items():
            keep = self._keeper(candidate, folders, name)
            began = time.perf_counter()
            candidate.scores[name] = validator.run(candidate.model.restore, dataset, name, keep)
            seconds = time.perf_counter() - began
            logger.info("%s on %s: %d images in %.1f s", options.name, name, len(dataset), seconds)
            for note in candidate.scores[name].notes(name):
                logger.warning("%s: %s", options.name, note)
            self._judge_baseline(validator, options.scale, name, dataset)
        candidate.images.merge(all_gather_object(candidate.images.datasets))

    @staticmethod
    def _keeper(candidate: Candidate, folders: ResultsFolders, name: str) -> Callable[[Judged], None]:
        """What is done with each restored image of a data set: taken into the report, and written if asked for."""
        options = candidate.options
        write = None
        if options.val.save_img:
            write = image_writer(folders.visualization / name, options.val.suffix or options.name)

        def keep(judged: Judged) -> None:
            candidate.images.keep(name, judged)
            if write is not None:
                write(judged)

        return keep

    def _judge_baseline(self, validator: Validator, scale: int, name: str, dataset: EvaluationDataset) -> None:
        """Score what needs no network, once for each data set: bicubic interpolation, or the input itself."""
        label, restore = ("Bicubic", upscale_bicubic(scale)) if scale > 1 else ("Input", pass_through)
        row = self.baselines.setdefault(label, Row(label, is_network=False))
        if validator.metrics and name not in row.datasets:
            row.datasets[name] = validator.run(restore, dataset, f"{name} ({label.lower()})")

    def _report(self, folders: Sequence[ResultsFolders]) -> None:
        higher_is_better = {
            metric.name: metric.higher_is_better for candidate in self.candidates for metric in candidate.metrics
        }
        baselines = [row for row in self.baselines.values() if row.datasets]
        for candidate, folder in zip(self.candidates, folders, strict=True):
            write_results(candidate, baselines, folder, higher_is_better)
        table = make_table([*baselines, *(candidate.row for candidate in self.candidates)], higher_is_better)
        left_out = [note for candidate in self.candidates for note in candidate.left_out]
        notes = [*protocol_notes(self.candidates[0].options), *dict.fromkeys(left_out)]
        if len(self.candidates) > 1:
            write_markdown(folders[0].root / COMPARISON, "Comparison", table, notes)
        if table.columns:
            console.print(table.for_terminal(self.candidates[0].options.name if len(folders) == 1 else "Comparison"))
        for note in notes:
            console.print(note, markup=False, highlight=False)
        for candidate, folder in zip(self.candidates, folders, strict=True):
            name, files = candidate.options.name, "metrics.md, metrics.json, report.html"
            console.print(f"Results of {name}: {folder.root}/{files}", markup=False)
            if candidate.options.val.save_img:
                console.print(f"Restored images: {folder.visualization}", markup=False)
        if len(self.candidates) > 1:
            console.print(f"Comparison: {folders[0].root / COMPARISON}", markup=False)


def check_comparable(files: Sequence[TestOptions]) -> None:
    """Raise UserError for option files whose results would overwrite each other or could not stand in one table."""
    first = files[0]
    names = [options.name for options in files]
    for options in files[1:]:
        if names.count(options.name) > 1:
            raise UserError(f"{options.where('name')}: '{options.name}' names several option files; rename one")
        if options.val.metrics != first.val.metrics:
            raise UserError(
                f"{options.where('val.metrics')}: differs from {first.source.file}; "
                "networks are compared by the same metrics with the same settings"
            )
        own, theirs = options.evaluation_datasets(), first.evaluation_datasets()
        shared = [name for name in own if name in theirs]
        if shared and options.scale != first.scale:
            raise UserError(f"{options.where('scale')}: is {options.scale}, but {first.scale} in {first.source.file}")
        for name in shared:
            if own[name].model_dump(include=IMAGE_KEYS) != theirs[name].model_dump(include=IMAGE_KEYS):
                raise UserError(
                    f"{options.where('datasets')}: '{name}' is not made of the same images as in {first.source.file}; "
                    "give it another name, or the same roots"
                )


def prepare_candidate(options: TestOptions, group: ProcessGroup) -> Candidate:
    """Build all that an option file describes. Raises UserError for whatever is wrong with it."""
    # A network that names its own weights (spandrel's) comes with them.
    if options.path.pretrain_network_g is None and "path" not in options.network_g:
        raise UserError(f"{options.where('path.pretrain_network_g')}: is missing; give the weights to test")
    device = select_device(options.num_gpu, group.local_rank)
    metrics = build_metrics(options.val.metrics, options.where)
    try_metrics(metrics, options.val.metrics, options.where)
    datasets = build_val_datasets(options, check=group.rank == 0)
    restoration = build_restoration(options.val, device)
    model = RestorationModel(build_generator(options), device=device, restoration=restoration)
    return Candidate(options, model, metrics, datasets)


def make_folders(options: TestOptions) -> ResultsFolders:
    """results/<name> with the option file in it; made by the first process, known to all."""

    def make() -> ResultsFolders:
        folders = prepare_results_folder(options.path.root, options.name)
        save_options(folders.root, Path(options.source.file), dump_options(options))
        return folders

    return from_first_process(make)


def write_results(
    candidate: Candidate, baselines: Sequence[Row], folders: ResultsFolders, higher_is_better: Mapping[str, bool]
) -> None:
    """Write metrics.json, metrics.md and report.html of one network, with the baselines on its own data sets."""
    options = candidate.options
    own = [
        Row(row.name, {name: row.datasets[name] for name in candidate.scores if name in row.datasets}, is_network=False)
        for row in baselines
    ]
    weights = options.path.pretrain_network_g or options.network_g["path"]
    content = metrics_json(
        candidate.row,
        own[0] if own else None,
        options=options.model_dump(mode="json", exclude_none=True),
        weights=str(weights),
        protocol=protocol(options),
    )
    write_json(folders.root / "metrics.json", content)
    table: ResultTable = make_table([*own, candidate.row], higher_is_better)
    notes = [f"Weights: {weights}", *protocol_notes(options), *candidate.left_out]
    write_markdown(folders.root / "metrics.md", options.name, table, notes)
    write_html_report(folders.root / "report.html", options.name, table, candidate.images.datasets, notes)


def protocol(options: TestOptions) -> dict[str, Any]:
    """How the numbers came about."""
    return {
        "metrics": options.val.metrics,
        "images": "rounded to uint8",
        "scale": options.scale,
        "tile": options.val.tile,
        "self_ensemble": options.val.self_ensemble,
        "amp": options.val.amp,
    }


def protocol_notes(options: TestOptions) -> list[str]:
    """The same in words, for below a table."""
    metrics = "; ".join(
        f"{name.upper()}: {'Y channel (BT.601)' if block.get('test_y_channel') else 'all channels'}, "
        f"{block.get('crop_border', 0)} pixels cropped at each border"
        for name, block in options.val.metrics.items()
    )
    tiles = {"published": "in the published tiles", "none": "whole"}.get(
        str(options.val.tile), f"in tiles of {options.val.tile} pixels"
    )
    ensemble = ", averaged over eight flips and transpositions" if options.val.self_ensemble else ""
    return [*([metrics] if metrics else []), f"Images are restored {tiles}{ensemble}, and rounded to uint8."]
