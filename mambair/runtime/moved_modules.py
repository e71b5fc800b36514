"""Modules under the names that they had before the house got wings: imported as before, with a warning.

Scripts and plug-ins that import one get the very module that took its place, so that replacing a function in it works
too. CHANGELOG.md has the same table for people.
"""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "archs.detection": "weights.detection",
    "archs.foreign": "weights.foreign",
    "archs.state_files": "weights.state_files",
    "archs.weights": "weights.loading",
    "commands.restore_command": "commands.restore.command",
    "commands.restore_inputs": "commands.restore.inputs",
    "commands.restore_outcome": "commands.restore.outcome",
    "commands.restore_run": "commands.restore.run",
    "commands.run_command": "commands.runs_together",
    "commands.test_command": "commands.test",
    "commands.train_command": "commands.train",
    "commands.video": "commands.restore.video",
    "data.samples": "data.contracts",
    "data_tools": "commands.data",
    "data_tools.blocks": "commands.data.blocks",
    "data_tools.check": "commands.data.check",
    "data_tools.command": "commands.data.command",
    "data_tools.derive": "commands.data.derive",
    "data_tools.jobs": "commands.data.jobs",
    "data_tools.metainfo": "commands.data.metainfo",
    "data_tools.sidd": "commands.data.sidd",
    "data_tools.submission": "commands.data.submission",
    "engine.draws": "engine.train.draws",
    "engine.html_report": "engine.evaluate.html_report",
    "engine.passes": "engine.train.passes",
    "engine.progress": "engine.train.progress",
    "engine.report": "engine.evaluate.tables",
    "engine.resuming": "engine.checkpoints.resuming",
    "engine.run_log": "engine.train.run_log",
    "engine.run_validation": "engine.train.validation",
    "engine.scoring": "engine.evaluate.scoring",
    "engine.signals": "engine.train.signals",
    "engine.stepper": "engine.train.step",
    "engine.testing": "engine.evaluate.run",
    "engine.trackers": "engine.train.trackers",
    "engine.trainer": "engine.train.loop",
    "engine.training": "engine.train.run",
    "engine.usual_loss": "engine.train.usual_loss",
    "engine.validator": "engine.evaluate.validator",
    "engine.whole_checkpoints": "engine.checkpoints.complete",
    "models.ensemble": "inference.ensemble",
    "models.graphs": "inference.graphs",
    "models.image_types": "inference.image_types",
    "models.memory": "inference.memory",
    "models.published_weights": "weights.published",
    "models.restoration": "inference.whole_or_tiled",
    "models.restorer": "inference.restorer",
    "models.tiling": "inference.tiling",
    "models.weights_source": "weights.sources",
}
"""Old name -> new one, both below mambair."""

PREFIX = "mambair."


class _Alias(Loader):
    """Gives the module that took an old one's place."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.target)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import system has written the old name's over it


class MovedModules(MetaPathFinder):
    """Finds modules under their old names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module that took the place of `fullname`; None for every other name."""
        new = MOVED.get(fullname.removeprefix(PREFIX)) if fullname.startswith(PREFIX) else None
        if new is None:
            return None
        warnings.warn(f"{fullname} is {PREFIX}{new} now", DeprecationWarning, stacklevel=2)
        return ModuleSpec(fullname, _Alias(PREFIX + new), is_package=fullname == f"{PREFIX}data_tools")


def install() -> None:
    """Let old names be found, before the file system takes the new package for a second one of the old name."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())
