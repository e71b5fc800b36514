"""Checkpoints: written whole or not at all, checked before they are used, pruned.

A checkpoint of iteration N is, as in BasicSR,

    models/net_g_N.pth          {"params": ..., "params_ema": ...}; one file per network
    training_states/N.state     optimisers, iteration, random states, best metrics: all else a run goes on from
    training_states/N.sha256    checksums of these files, in the format of `sha256sum -c`; written last

All of them are readable by torch.load(weights_only=True).
"""

import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mambair.errors import UserError
from mambair.models.base_model import TrainableModel
from mambair.models.ema import go_on_after, restart_average
from mambair.runtime.files import atomic_write
from mambair.weights.loading import load_state_dict, network_options
from mambair.weights.state_files import (
    METADATA_KEY,
    CodeInFileError,
    DamagedFileError,
    load_tensors,
    read_weights_file,
)
from mambair.weights.wrapping import unwrap

BEST = "best"
"""The label of the weights that validated best: net_g_best.pth."""

LATEST = "latest"
"""The label under which a finished run's weights are found whatever its length, as BasicSR writes them."""


@dataclass(frozen=True)
class CheckpointFolders:
    """Where the parts of a checkpoint lie."""

    models: Path
    training_states: Path

    @classmethod
    def of_state(cls, state: Path) -> "CheckpointFolders":
        """The folders of the run that `state` (.../training_states/N.state) belongs to."""
        return cls(state.parent.parent / "models", state.parent)

    def weights(self, network: str, label: int | str) -> Path:
        """models/net_g_<label>.pth."""
        return self.models / f"{network}_{label}.pth"

    def state(self, iteration: int) -> Path:
        """training_states/<iteration>.state."""
        return self.training_states / f"{iteration}.state"

    def checksums(self, iteration: int) -> Path:
        """training_states/<iteration>.sha256."""
        return self.training_states / f"{iteration}.sha256"

    def iterations(self) -> list[int]:
        """The iterations that have a state file, whole or not, newest first."""
        found = (path.stem for path in self.training_states.glob("*.state"))
        return sorted((int(stem) for stem in found if stem.isdecimal()), reverse=True)


def save_weights(folders: CheckpointFolders, model: TrainableModel, label: int | str) -> dict[Path, str]:
    """Write every network of the model, with its average; returns the files' checksums."""
    written = {}
    for name, network in model.networks.items():
        content: dict[str, Any] = {"params": to_cpu(network.state_dict())}
        if name in model.averages:
            content["params_ema"] = to_cpu(model.averages[name].module.state_dict())
        options = network_options(network)
        if options is not None:
            content[METADATA_KEY] = options  # rebuilds the network from the file alone
        path = folders.weights(name, label)
        written[path] = write_archive(path, content)
    return written


def save_checkpoint(
    folders: CheckpointFolders, model: TrainableModel, state: Mapping[str, Any], keep: int | None = None
) -> None:
    """Write the checkpoint of iteration state["iter"], then delete all but the `keep` newest ones.

    Raises OSError if the disk is full or fails: the older checkpoints are then as they were.
    """
    iteration = state["iter"]
    # What was written about earlier files of this iteration (by a run that was started over) ends here.
    folders.checksums(iteration).unlink(missing_ok=True)
    try:
        written = save_weights(folders, model, iteration)
        written[folders.state(iteration)] = write_archive(folders.state(iteration), dict(state))
    except OSError:
        if not folders.state(iteration).is_file():  # weights without a state would only fill a full disk
            for name in model.networks:
                folders.weights(name, iteration).unlink(missing_ok=True)
        raise
    with atomic_write(folders.checksums(iteration)) as temporary:
        lines = (f"{checksum}  {from_states(path)}\n" for path, checksum in written.items())
        temporary.write_text("".join(lines), encoding="utf-8")
    prune(folders, model.networks, keep)


def write_archive(path: Path, content: Mapping[str, Any]) -> str:
    """Write a file that torch.load reads, in one step; returns its checksum. Raises OSError as files do."""
    # Through memory: torch's own writer turns a full disk into an internal error of another type.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def prune(folders: CheckpointFolders, networks: Iterable[str], keep: int | None) -> None:
    """Delete all checkpoints but the `keep` newest (None: keep all). The best weights are files of their own."""
    for iteration in folders.iterations()[keep:] if keep else []:
        for path in (folders.checksums(iteration), folders.state(iteration)):
            path.unlink(missing_ok=True)
        for name in networks:
            folders.weights(name, iteration).unlink(missing_ok=True)


def read_state(path: Path) -> dict[str, Any]:
    """A training state, ours or BasicSR's, as {"iter": ..., "optimizers": [...], ...} with tensors on the CPU.

    Raises UserError for a file that is missing, damaged, no training state, or holds code.
    """
    if not path.is_file():
        raise UserError(f"path.resume_state: {path} does not exist")
    try:
        state = load_tensors(path)
    except CodeInFileError as error:
        raise UserError(f"path.resume_state: {path} is refused, it holds more than tensors ({error})") from error
    except DamagedFileError as error:
        raise UserError(f"path.resume_state: {path} is damaged ({error})") from error
    if not is_state(state):
        raise UserError(
            f"path.resume_state: {path} is not a training state (weights go to path.pretrain_network_g); "
            "give experiments/<name>/training_states/<iter>.state"
        )
    return state


def is_state(content: Any) -> bool:
    """Whether what a file holds has the build of a training state."""
    return (
        isinstance(content, dict)
        and isinstance(content.get("iter"), int)
        and content["iter"] >= 0
        and isinstance(content.get("optimizers"), list)
        and all(isinstance(part, dict) and {"state", "param_groups"} <= part.keys() for part in content["optimizers"])
        and all(isinstance(content.get(key, {}), dict) for key in ("averages", "best", "plan", "scaler"))
        and isinstance(content.get("processes", []), list)
    )


def load_networks(
    model: TrainableModel, folders: CheckpointFolders, iteration: int, updates: Mapping[str, int]
) -> None:
    """Load the weights that belong to a state, and the averages if the files have them (else they restart).

    `updates`: how often each average was updated; as often as there were iterations where that is not known.
    """
    for name, network in model.networks.items():
        path = folders.weights(name, iteration)
        if not path.is_file():
            raise UserError(f"path.resume_state: {path}, the weights that belong to the state, do not exist")
        content, _ = read_weights_file(path)
        load_state_dict(network, unwrap(content, path, "params"), path)
        average = model.averages.get(name)
        if average is not None and "params_ema" in content:
            load_state_dict(average.module, unwrap(content, path, "params_ema"), path)
            go_on_after(average, updates.get(name, iteration))
        elif average is not None:
            restart_average(average, network)


def load_optimizers(model: TrainableModel, state: Mapping[str, Any], path: Path) -> None:
    """Load the optimisers of a state, in the order of the model's."""
    saved = state["optimizers"]
    if len(saved) != len(model.optimizers):
        raise UserError(
            f"path.resume_state: {path} has {len(saved)} optimisers, this model {len(model.optimizers)}; "
            "resume with the option file that the run was started with"
        )
    for optimizer, content in zip(model.optimizers.values(), saved, strict=True):
        optimizer.load_state_dict(content)


def to_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of a state dict on the CPU, for machines without the GPU it was trained on."""
    return {key: value.detach().cpu() for key, value in state.items()}


def from_states(path: Path) -> str:
    """A part's path as seen from the folder of training states."""
    return path.name if path.suffix == ".state" else f"../{path.parent.name}/{path.name}"
