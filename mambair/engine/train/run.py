"""From a training option file to a finished run."""

import logging
from pathlib import Path

import torch

import mambair.models.gan_model
import mambair.models.real_sr_model  # noqa: F401  (these register the models)
from mambair.data.loaders import TrainLoader, build_train_loader, build_val_datasets
from mambair.engine.checkpoints.files import CheckpointFolders
from mambair.engine.checkpoints.position import Position
from mambair.engine.checkpoints.resuming import (
    Start,
    batch_plan,
    continue_options,
    experiment_folder,
    find_start,
    go_on_from,
    set_aside_newer,
)
from mambair.engine.evaluate.scoring import build_metrics, try_metrics
from mambair.engine.train.loop import Schedule, Trainer
from mambair.engine.train.passes import GraphedPasses, graph_refusal
from mambair.engine.train.run_log import log_beginning, log_end, write_failure
from mambair.engine.train.step import Stepper
from mambair.engine.train.trackers import TensorBoardTracker, Tracker, WandbTracker, check_wandb
from mambair.engine.train.trial import has_foreign_parts, try_model
from mambair.engine.train.validation import RunValidation
from mambair.errors import UserError
from mambair.models.base_model import TrainableModel
from mambair.options import TrainOptions, dump_options
from mambair.options.plugins import loaded_plugins
from mambair.registry import MODELS
from mambair.runtime.devices import select_device
from mambair.runtime.distributed import ProcessGroup, from_first_process, is_main_process
from mambair.runtime.log_setup import EarlyLines, setup_logging
from mambair.runtime.run_folders import RunFolders, prepare_experiment_folder, save_copies, save_options
from mambair.runtime.seeding import seed_everything

logger = logging.getLogger(__name__)

# Iterations that make up for the time torch.compile takes: on an H100 about 40 s, against 30 ms an iteration.
COMPILE_PAYS_FROM = 5000


class TrainingRun:
    """A run that has been built and checked, and has not written anything yet.

    Args:
        options: the option file.
        group: this process among those of the run.
        auto_resume: go on from the newest complete checkpoint if there is one.

    Raises:
        UserError: whatever is wrong with options, data, weights or the checkpoint.
    """

    def __init__(self, options: TrainOptions, group: ProcessGroup, auto_resume: bool = False) -> None:
        self.early_lines = EarlyLines()
        self.group = group
        device = select_device(options.num_gpu, group.local_rank)
        seed_everything(options.manual_seed, options.deterministic)
        check_wandb(options.logger.wandb.project)
        self.start: Start = find_start(options, auto_resume)
        self.options = options = continue_options(options, self.start)
        self.model: TrainableModel = MODELS.named(options.model_type, options.where("model_type")).from_options(
            options, device
        )
        try_model(self.model, options)
        self.loader: TrainLoader = build_train_loader(options, group, self.start.iteration)
        self.validation = self._build_validation()
        self.stepper = Stepper(
            self.model,
            group,
            seed=options.manual_seed,
            clip_norm=options.train.grad_clip_norm if options.train.use_grad_clip else None,
            skip_nonfinite=options.train.skip_nonfinite,
            graphs=self._use_graphs(),
        )
        self.position: Position = go_on_from(self.start, self.model, self.stepper, group)

    def _use_graphs(self) -> bool:
        """Whether passes are replayed as CUDA graphs. Raises UserError if they are asked for and cannot be."""
        train = self.options.train
        refusal = graph_refusal(self.model, self.model.phases(self.start.iteration))
        if train.cuda_graph is True and refusal is not None:
            raise UserError(f"{self.options.where('train.cuda_graph')}: {refusal}; set it to auto or false")
        if train.cuda_graph == "auto" and has_foreign_parts(self.options):
            return False
        return refusal is None and train.cuda_graph is not False

    def _use_compile(self) -> bool:
        """Whether the networks are compiled: 'auto' does where the rest of the run is long enough to gain from it."""
        train = self.options.train
        if train.compile == "auto":
            ahead = train.total_iter - self.start.iteration
            gain = not self._use_graphs() or any(
                getattr(self.model.networks[name], "compiling_pays", True) for name in self.model.optimizers
            )
            return self.model.device.type == "cuda" and ahead >= COMPILE_PAYS_FROM and gain
        return train.compile

    def _build_validation(self) -> RunValidation | None:
        val = self.options.val
        if val is None or val.val_freq is None:
            return None
        metrics = build_metrics(val.metrics, self.options.where)
        try_metrics(metrics, val.metrics, self.options.where)
        return RunValidation(
            build_val_datasets(self.options, check=self.group.rank == 0),
            sorted(metrics, key=lambda metric: metric.name != val.best),  # the first one picks the best weights
            self.group,
            show_progress=val.pbar,
        )

    def run(self, debug: bool = False) -> int:
        """Train to the end, or until asked to stop; returns the exit code (see `Trainer.train`)."""
        options = self.options
        if self._use_compile():
            # Where nobody asked for it, what cannot be compiled runs as it is.
            torch._dynamo.config.suppress_errors = options.train.compile == "auto"
            self.model.compile()
        if self.group.world_size > 1 and not isinstance(self.stepper.passes, GraphedPasses):
            self.model.distribute()
        folders = self._make_folders()
        setup_logging(folders.log, self.group.rank, debug)
        self.early_lines.write_to_file()
        log_beginning(options, self.start, folders, self.model)
        trackers = self._open_trackers(folders)
        try:
            with self.loader:
                code = self._trainer(folders, trackers).train()
        except Exception as error:
            write_failure(error)
            raise
        finally:
            for tracker in trackers:
                tracker.close()
        if self.loader.bad_files:
            logger.warning("files of the training set that could not be used: %d", len(self.loader.bad_files))
        if code == 0:
            log_end(options, folders, self.position)
        return code

    def _trainer(self, folders: RunFolders, trackers: list[Tracker]) -> Trainer:
        options = self.options
        val = options.val
        if self.validation is not None and val is not None:
            self.validation.trackers = trackers
            self.validation.visualization = folders.visualization if val.save_img else None
        schedule = Schedule(
            options.train.total_iter,
            options.logger.print_freq,
            options.logger.save_checkpoint_freq,
            val.val_freq if val is not None else None,
            options.logger.keep_checkpoints,
            val.patience if val is not None else None,
        )
        return Trainer(
            self.model,
            self.stepper,
            iter(self.loader),
            schedule,
            self.position,
            folders=folders,
            plan=batch_plan(options, self.group),
            validation=self.validation,
            trackers=trackers,
            bad_files=self.loader.bad_files,
            resumed_from=self.start.path,
        )

    def _make_folders(self) -> RunFolders:
        """Made by the first process, known to all. An earlier run of the same name is archived unless it goes on."""

        def make() -> RunFolders:
            options = self.options
            inside = self.start.is_inside(experiment_folder(options))
            folders = prepare_experiment_folder(options.path.root, options.name, resume=inside)
            if inside:
                set_aside_newer(CheckpointFolders(folders.models, folders.training_states), self.start.iteration)
            save_options(folders.root, Path(options.source.file), dump_options(options))
            files = [plugin.path for plugin in loaded_plugins() if plugin.is_file and plugin.path is not None]
            save_copies(folders.root / "plugins", files)
            return folders

        return from_first_process(make)

    def _open_trackers(self, folders: RunFolders) -> list[Tracker]:
        """Only the first process has trackers."""
        logger_options = self.options.logger
        trackers: list[Tracker] = []
        if is_main_process() and logger_options.use_tb_logger:
            trackers.append(TensorBoardTracker(folders.tb, self.start.iteration))
        if is_main_process() and logger_options.wandb.project is not None:
            trackers.append(
                WandbTracker(
                    logger_options.wandb.project,
                    self.options.name,
                    logger_options.wandb.resume_id,
                    folders.root,
                    self.options.model_dump(mode="json", exclude_none=True),
                )
            )
        return trackers
