"""The folders of a run. An existing run of the same name is archived, never mixed with the new one."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mambair.errors import UserError
from mambair.runtime.claims import claimed, lock_beside
from mambair.runtime.files import atomic_write, remove_leftovers


@dataclass(frozen=True)
class RunFolders:
    """Where a training run writes."""

    root: Path
    """experiments/<name>."""
    models: Path
    """Weights: net_g_<iter>.pth."""
    training_states: Path
    """States to resume from: <iter>.state."""
    log: Path
    """The log file of this start of the run."""
    visualization: Path
    """Images of validations."""
    tb: Path
    """TensorBoard logs: tb_logger/<name>."""
    archived: tuple[Path, ...] = ()
    """What an earlier run of the same name left, under its new names."""


@dataclass(frozen=True)
class ResultsFolders:
    """Where a test writes."""

    root: Path
    """results/<name>."""
    visualization: Path
    """Restored images, one folder per data set."""
    log: Path
    """The log file."""
    archived: tuple[Path, ...] = ()
    """What an earlier test of the same name left, under its new name."""


def timestamp() -> str:
    """Local time as it stands in names of archived folders and logs: YYYYmmdd_HHMMSS."""
    return datetime.now().strftime("%Y%m%d_%H%M%S")


def claimed_experiment(root: str | Path, name: str) -> AbstractContextManager[None]:
    """Within this block no other process trains experiments/<name>; UserError, saying which one, where one does."""
    return _claimed_run(Path(root) / "experiments" / name)


def claimed_results(root: str | Path, name: str) -> AbstractContextManager[None]:
    """The same for tests and results/<name>."""
    return _claimed_run(Path(root) / "results" / name)


def _claimed_run(folder: Path) -> AbstractContextManager[None]:
    return claimed(lock_beside(folder), str(folder), "wait for its end, stop it, or change 'name'")


def prepare_experiment_folder(root: str | Path, name: str, resume: bool) -> RunFolders:
    """Make experiments/<name> with its subfolders, and tb_logger/<name>, under `root`.

    Existing ones are renamed to <name>_archived_<time> unless `resume`, which goes on in them; the temporary files of
    a killed process are removed from them. Call it on one process only, after everything that can be checked
    beforehand. Raises UserError if a folder cannot be made or renamed.
    """
    now = timestamp()
    experiment = Path(root) / "experiments" / name
    board = Path(root) / "tb_logger" / name
    remove_leftovers(experiment)
    archived: list[Path] = []
    if not resume:
        archived = [new for old in (experiment, board) if (new := archive(old, now))]
    folders = RunFolders(
        root=experiment,
        models=experiment / "models",
        training_states=experiment / "training_states",
        log=experiment / f"train_{name}_{now}.log",
        visualization=experiment / "visualization",
        tb=board,
        archived=tuple(archived),
    )
    for folder in (folders.models, folders.training_states, folders.visualization):
        _make(folder)
    return folders


def prepare_results_folder(root: str | Path, name: str) -> ResultsFolders:
    """Make results/<name> under `root`; an existing one is renamed as for training."""
    now = timestamp()
    results = Path(root) / "results" / name
    archived = archive(results, now)
    folders = ResultsFolders(
        root=results,
        visualization=results / "visualization",
        log=results / f"test_{name}_{now}.log",
        archived=(archived,) if archived else (),
    )
    _make(folders.visualization)
    return folders


def save_options(folder: Path, option_file: Path, effective: str) -> None:
    """Keep the option file as the user wrote it, and the options in effect as `effective_options.yml`.

    A copy that a resumed run finds with other content is kept; the new one gets the time in its name.
    """
    keep(folder / option_file.name, option_file.read_bytes())
    keep(folder / "effective_options.yml", effective.encode())


def save_copies(folder: Path, files: Sequence[Path]) -> None:
    """Copy files into a folder of the run; copies that differ from them are kept, as `save_options` does."""
    for file in files:
        keep(folder / file.name, file.read_bytes())


def keep(target: Path, content: bytes) -> None:
    """Write a file; where there is one with other content, under a name with the time."""
    if target.exists() and target.read_bytes() != content:
        target = target.with_name(f"{target.stem}_{timestamp()}{target.suffix}")
    with atomic_write(target) as temporary:
        temporary.write_bytes(content)


def archive(folder: Path, now: str) -> Path | None:
    """Rename `folder` to <name>_archived_<now> (numbered if that is taken); None if there is nothing to rename."""
    if not folder.exists() and not folder.is_symlink():
        return None
    target = folder.with_name(f"{folder.name}_archived_{now}")
    number = 1
    while target.exists():
        number += 1
        target = folder.with_name(f"{folder.name}_archived_{now}_{number}")
    try:
        return folder.rename(target)
    except OSError as error:
        reason = f"cannot archive the earlier run: {error.strerror}; move it or change 'name'"
        raise UserError(f"{folder}: {reason}") from None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot make the folder: {error.strerror}; check path.root") from None
