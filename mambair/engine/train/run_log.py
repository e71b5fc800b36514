"""The first and the last lines of a training log."""

import logging
import platform
import sys
from pathlib import Path

import torch

import mambair
from mambair.engine.checkpoints.files import BEST, CheckpointFolders
from mambair.engine.checkpoints.position import Position
from mambair.engine.checkpoints.resuming import Start
from mambair.engine.evaluate.tables import format_value
from mambair.models.base_model import TrainableModel
from mambair.options import TrainOptions
from mambair.runtime.failure_watch import describe_failure
from mambair.runtime.log_setup import file_handlers
from mambair.runtime.run_folders import RunFolders

logger = logging.getLogger(__name__)


def write_failure(error: Exception) -> None:
    """Write what ends the run to the log file; the terminal gets it from the command."""
    record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, describe_failure(error), (), None)
    for handler in file_handlers():
        handler.handle(record)


def log_beginning(options: TrainOptions, start: Start, folders: RunFolders, model: TrainableModel) -> None:
    """What runs, where, on what, and from which iteration."""
    for warning in options.source.warnings:
        logger.warning(warning)
    for old in folders.archived:
        logger.info("an earlier run is kept as %s", old)
    device = model.device
    is_gpu = device.type == "cuda"
    hardware = torch.cuda.get_device_name(device) if is_gpu else f"CPU, {torch.get_num_threads()} threads"
    versions = f"mambair {mambair.__version__}, PyTorch {torch.__version__}, Python {platform.python_version()}"
    logger.info("%s in %s on %s (%s)", options.name, folders.root, hardware, versions)
    for name in model.optimizers:
        count = sum(parameter.numel() for parameter in model.networks[name].parameters())
        section = getattr(options, f"network_{name.removeprefix('net_')}")  # net_g is described by network_g
        logger.info("%s: %s, %s parameters", name, section["type"], f"{count:,}")
    if start.path is not None:
        logger.info("going on after iteration %s from %s", f"{start.iteration:,}", start.path)


def log_end(options: TrainOptions, folders: RunFolders, position: Position) -> None:
    """Where everything is, and what to do next."""
    checkpoints = CheckpointFolders(folders.models, folders.training_states)
    weights = checkpoints.weights("net_g", position.iteration)
    logger.info("finished after %s iterations", f"{position.iteration:,}")
    logger.info("weights: %s", weights)
    best = checkpoints.weights("net_g", BEST)
    if position.best and best.is_file():
        key, record = next(iter(position.best.items()))
        value = format_value(key.rpartition("/")[2], record["value"])
        logger.info("best weights: %s (%s %s at iteration %s)", best, key, value, f"{record['iter']:,}")
        weights = best
    logger.info("log and options: %s", folders.root)
    if options.logger.use_tb_logger:
        logger.info("curves: tensorboard --logdir %s", folders.tb)
    test_file = options_to_test(Path(options.source.file))
    if test_file is not None:
        logger.info("next: %s -opt %s --run %s", _as_started("test"), test_file, folders.root)
    elif options.val is not None and options.val.metrics and options.evaluation_datasets():
        logger.info("next: %s --run %s", _as_started("test"), folders.root)
    else:
        logger.info("next: %s photo.jpg -o restored --weights %s", _as_started("restore"), weights)


def _as_started(command: str) -> str:
    """Another command, spelt as this one was: `mambair test`, or `python mambair/test.py` in a checkout."""
    started = Path(sys.argv[0])
    return f"python {started.with_name(f'{command}.py')}" if started.name == "train.py" else f"mambair {command}"


def options_to_test(train_options: Path) -> Path | None:
    """The option file for testing what another one trains: NAME_test.yml beside it, ../test/NAME.yml, or none."""
    beside = train_options.with_name(f"{train_options.stem}_test.yml")
    candidates = [beside]
    if train_options.parent.name == "train":
        candidates.append(train_options.parent.with_name("test") / train_options.name)
    return next((path for path in candidates if path.is_file()), None)
