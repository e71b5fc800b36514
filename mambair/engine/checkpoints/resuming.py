"""Going on with a run from one of its checkpoints, or from a training state of BasicSR."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from mambair.engine.checkpoints.complete import find_damage, newest_complete
from mambair.engine.checkpoints.files import (
    CheckpointFolders,
    load_networks,
    load_optimizers,
    read_state,
)
from mambair.engine.checkpoints.position import Position
from mambair.errors import UserError
from mambair.models.base_model import TrainableModel
from mambair.options import TrainOptions, dump_options
from mambair.options.plugins import loaded_plugins
from mambair.runtime.distributed import ProcessGroup, broadcast_object, is_main_process
from mambair.runtime.seeding import set_rng_state

logger = logging.getLogger(__name__)

WITHOUT_NUMBERS = {"path", "logger", "dist_params", "num_gpu", "manual_seed", "plugins"}
"""Sections and keys of which going on with others is no surprise, or is told in other words."""

SUPERSEDED = ".superseded"


class KeepsState(Protocol):
    """What takes a run's steps, as far as a checkpoint knows it."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what a checkpoint holds of it; keys that are missing mean a beginning."""


@dataclass(frozen=True)
class Start:
    """Where a run begins: anew, or at a checkpoint."""

    path: Path | None = None
    """The state file that it goes on from."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """What that file holds."""

    @property
    def iteration(self) -> int:
        """Iterations done before."""
        return int(self.state.get("iter", 0))

    def is_inside(self, experiment: Path) -> bool:
        """Whether the checkpoint is one of this experiment's own, so that the run goes on in its folder."""
        return self.path is not None and experiment.resolve() in self.path.resolve().parents


def experiment_folder(options: TrainOptions) -> Path:
    """experiments/<name>."""
    return Path(options.path.root) / "experiments" / options.name


def find_start(options: TrainOptions, auto_resume: bool) -> Start:
    """The newest complete checkpoint if `auto_resume` (and there is one), else path.resume_state, else a new run.

    Raises UserError for a state that cannot be read.
    """
    networks = ["net_g"] if options.network_d is None else ["net_g", "net_d"]
    newest = None
    if auto_resume:
        if is_main_process():
            folder = experiment_folder(options)
            newest = newest_complete(CheckpointFolders(folder / "models", folder / "training_states"), networks)
        newest = broadcast_object(newest)
    path = newest or options.path.resume_state
    if path is None:
        if auto_resume:
            logger.info("--auto_resume: there is no complete checkpoint; the run begins anew")
        return Start()
    start = Start(path, read_state(path))
    if newest is None and is_main_process():
        check_whole(path, start.iteration, networks)
    return start


def check_whole(state: Path, iteration: int, networks: Sequence[str]) -> None:
    """Raise UserError for a checkpoint of ours that is not as it was written."""
    folders = CheckpointFolders.of_state(state)
    if folders.checksums(iteration).is_file() and state.name == folders.state(iteration).name:
        damage = find_damage(folders, iteration, networks)
        if damage is not None:
            raise UserError(
                f"path.resume_state: {damage}; go on from another state, or, if the file was changed on purpose, "
                f"remove {folders.checksums(iteration)}"
            )


def continue_options(options: TrainOptions, start: Start) -> TrainOptions:
    """The options under which a run goes on: without the weights that it began with, and with its total batch.

    `num_gpu: auto` makes the total batch follow the number of processes; going on keeps that of the first start.
    """
    if start.path is None:
        return options
    path = options.path.model_copy(update={"pretrain_network_g": None, "pretrain_network_d": None})
    plan = start.state.get("plan", {})
    changes: dict[str, Any] = {"path": path}
    if options.num_gpu == "auto" and "num_gpu" in plan:
        changes["num_gpu"] = plan["num_gpu"]
    if plan.get("manual_seed", options.manual_seed) != options.manual_seed:
        logger.warning(
            "manual_seed is %d, but the checkpoint was made with %d: samples come in another order from here on",
            options.manual_seed,
            plan["manual_seed"],
        )
    for difference in option_differences(saved_options(start.path), options):
        logger.warning("the option file differs from the checkpoint's: %s", difference)
    for name, checksum in plan.get("plugins", {}).items():
        now = {plugin.name: plugin.sha256 for plugin in loaded_plugins()}.get(name)
        if now != checksum:
            what = "has not been loaded" if now is None else "has changed since"
            logger.warning("the checkpoint was made with the plug-in %s, which %s; its copy is in plugins/", name, what)
    return options.model_copy(update=changes)


def batch_plan(options: TrainOptions, group: ProcessGroup) -> dict[str, Any]:
    """What a checkpoint must know to go on alike: the seed, what the total batch is made of, and the plug-ins."""
    num_gpu = group.world_size if options.num_gpu == "auto" else options.num_gpu
    plugins = {plugin.name: plugin.sha256 for plugin in loaded_plugins()}
    return {"manual_seed": options.manual_seed, "num_gpu": num_gpu} | ({"plugins": plugins} if plugins else {})


def saved_options(state: Path) -> str | None:
    """The options in effect at the last start of the run that a state belongs to; None where they are not there."""
    kept = sorted(state.parent.parent.glob("effective_options*.yml"), key=lambda path: path.stat().st_mtime_ns)
    try:
        return kept[-1].read_text(encoding="utf-8") if kept else None
    except (OSError, UnicodeDecodeError):
        return None


def option_differences(saved: str | None, options: TrainOptions) -> list[str]:
    """`key: now VALUE, was VALUE` for what changes the numbers of a run; `saved` are the earlier options as YAML."""
    try:
        before = {} if saved is None else _flat(yaml.safe_load(saved))
    except yaml.YAMLError:
        before = {}
    now = _flat(yaml.safe_load(dump_options(options)))
    keys = [key for key in {**before, **now} if key.partition(".")[0] not in WITHOUT_NUMBERS]
    return [
        f"{key}: now {now.get(key, 'left out')}, was {before.get(key, 'left out')}"
        for key in keys
        if before and before.get(key) != now.get(key)
    ]


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, under dotted keys."""
    if not isinstance(data, dict):
        return {prefix.removesuffix("."): data}
    return {name: value for key, each in data.items() for name, value in _flat(each, f"{prefix}{key}.").items()}


def go_on_from(start: Start, model: TrainableModel, stepper: KeepsState, group: ProcessGroup) -> Position:
    """Load a checkpoint into the model and the stepper; returns where the run stands.

    A state of BasicSR has iteration and optimisers only; the rest then begins anew. Raises UserError for weights or
    optimisers that do not fit the model.
    """
    if start.path is None:
        return Position()
    state = start.state
    load_networks(model, CheckpointFolders.of_state(start.path), start.iteration, state.get("averages", {}))
    try:
        load_optimizers(model, state, start.path)
        for optimizer in model.optimizers.values():
            optimizer.set_iteration(max(start.iteration - 1, 0))  # the rate that the state was saved with
        stepper.load_state(state)
        processes = state.get("processes", [])
        model.load_extra_state([process["model"] for process in processes], group.rank)
        if group.rank < len(processes):
            set_rng_state(processes[group.rank]["rng"])
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"path.resume_state: {start.path} is damaged, or no state of this program ({reason})"
        ) from error
    return Position(start.iteration, dict(state.get("best", {})), bool(state.get("validation_pending", False)))


def set_aside_newer(folders: CheckpointFolders, iteration: int) -> None:
    """Rename the states of later iterations, which a run that goes on from an earlier one leaves behind.

    Otherwise --auto_resume would take them for this run's newest ones. Raises UserError where that fails.
    """
    for newer in folders.iterations():
        if newer <= iteration:
            continue
        path = folders.state(newer)
        try:
            folders.checksums(newer).unlink(missing_ok=True)
            path.replace(path.with_name(path.name + SUPERSEDED))
        except OSError as error:
            raise UserError(f"{path}: cannot be renamed ({error.strerror}); move it away") from error
        logger.warning("%s is later than the state this run goes on from; renamed to *%s", path, SUPERSEDED)
