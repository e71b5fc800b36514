"""Plug-ins: other people's networks, losses, data sets ... whose modules register them when they are imported.

To load a plug-in is to run its code. That happens where an option file or a command names it, or where an installed
package has the entry point `mambair.plugins`; nothing in a weight file can ever cause it.
"""

import importlib
import importlib.util
import logging
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from mambair.errors import UserError
from mambair.registry import registering_for
from mambair.runtime.files import sha256_of
from mambair.runtime.foreign_code import foreign_code, place_of

logger = logging.getLogger(__name__)

GROUP = "mambair.plugins"
"""The entry points of installed packages: their values are modules."""


@dataclass(frozen=True)
class Plugin:
    """A plug-in that has been loaded."""

    name: str
    """What messages and weight files call it: the file's name, or the module."""
    module: str
    """Its name in sys.modules."""
    path: Path | None
    """Its file; None for a module without one."""
    is_file: bool
    """Whether it was given as a file, not as a module."""
    sha256: str = ""
    """Checksum of the file."""

    @property
    def spec(self) -> str:
        """What loads it from anywhere: the absolute path of a file, or the module."""
        return str(self.path) if self.is_file else self.module


_loaded: dict[str, Plugin] = {}
_installed_are_loaded = False


def loaded_plugins() -> list[Plugin]:
    """The plug-ins of this process, in the order in which they were loaded."""
    return list(_loaded.values())


def load_plugins(
    specs: Iterable[str], folder: Path, where: str = "plugins", *, show_traceback: bool = False
) -> list[Plugin]:
    """Load plug-ins: files that end in .py, relative to `folder`, and modules, each of them once.

    Raises UserError, one line with the file and line at fault, for one that cannot be found or fails;
    `show_traceback` prints its traceback before.
    """
    return [_load(spec, folder, where, show_traceback) for spec in specs]


def load_plugins_of(data: Mapping[str, Any], file: Path, where: str, *, show_traceback: bool = False) -> list[Plugin]:
    """Load what an option file's key `plugins` names, relative to the file; nothing where it is of the wrong type."""
    named = data.get("plugins")
    named = [named] if isinstance(named, str) else named or []
    if not isinstance(named, list) or not all(isinstance(spec, str) for spec in named):
        return []  # the schema says what is wrong
    return load_plugins(named, file.absolute().parent, where, show_traceback=show_traceback)


def load_again(plugins: Sequence[Plugin]) -> None:
    """Load what another process has loaded, under the same module names, so that its objects can be unpickled."""
    for plugin in plugins:
        if plugin.module not in _loaded:
            if plugin.is_file and plugin.path is not None:
                _add_folder(plugin.path.parent)
                _run(plugin, "plugins", show_traceback=False)
            else:
                _import(plugin.module, "plugins", show_traceback=False)


def load_installed_plugins() -> list[str]:
    """Load the plug-ins of installed packages; returns a warning for each that fails, since nobody asked for it."""
    global _installed_are_loaded
    if _installed_are_loaded:
        return []
    _installed_are_loaded = True
    warnings = []
    for entry_point in entry_points(group=GROUP):
        package = entry_point.dist.name if entry_point.dist is not None else entry_point.module
        try:
            _import(entry_point.module, f"the installed package {package}", show_traceback=False)
        except UserError as error:
            warnings.append(f"{error}; what it registers cannot be used")
    return warnings


def _load(spec: str, folder: Path, where: str, show_traceback: bool) -> Plugin:
    if not spec.endswith(".py"):
        if not all(part.isidentifier() for part in spec.split(".")):
            raise UserError(f"{where}: '{spec}' is neither a Python file (ending in .py) nor the name of a module")
        _add_folder(folder.resolve())
        return _import(spec, where, show_traceback)
    path = (folder / Path(spec).expanduser()).resolve()
    if not path.is_file():
        raise UserError(f"{where}: there is no plug-in {path}")
    for plugin in _loaded.values():
        if plugin.path == path:
            return plugin
    _add_folder(path.parent)
    return _run(Plugin(path.name, _module_name(path), path, is_file=True), where, show_traceback)


def _add_folder(folder: Path) -> None:
    """Let plug-ins import what lies beside them. At the end of the path, so that nothing there can hide a package."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _module_name(path: Path) -> str:
    """The file's own name, by which its neighbours import it, unless something else is called so."""
    name = re.sub(r"\W", "_", path.stem)
    try:
        found = importlib.util.find_spec(name)
    except (ValueError, ImportError):  # a module without a spec, such as __main__
        return f"{name}_plugin"
    if found is None or (found.origin is not None and Path(found.origin).resolve() == path):
        return name
    return f"{name}_plugin_{sha256_of(path)[:8]}"


def _run(plugin: Plugin, where: str, show_traceback: bool) -> Plugin:
    """Run a plug-in's file as a module."""
    assert plugin.path is not None
    if plugin.module in sys.modules:  # a neighbour has imported it
        return _note(plugin, plugin.path)
    spec = importlib.util.spec_from_file_location(plugin.module, plugin.path)
    assert spec is not None and spec.loader is not None, plugin.path
    module = importlib.util.module_from_spec(spec)
    sys.modules[plugin.module] = module
    try:
        with _mistakes_told(where, plugin.name, show_traceback), registering_for(plugin.name):
            spec.loader.exec_module(module)
    except UserError:
        del sys.modules[plugin.module]
        raise
    return _note(plugin, plugin.path)


def _import(name: str, where: str, show_traceback: bool) -> Plugin:
    """Import a module as a plug-in."""
    if name in _loaded:
        return _loaded[name]
    with _mistakes_told(where, name, show_traceback), registering_for(name):
        try:
            module: ModuleType = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not error.name or not f"{name}.".startswith(f"{error.name}."):
                raise  # another module, which it wants to import
            raise UserError(
                f"{where}: there is no module '{name}'; install its package, or give a file that ends in .py"
            ) from None
    file = getattr(module, "__file__", None)
    return _note(Plugin(name, name, Path(file) if file else None, is_file=False), Path(file) if file else None)


def _note(plugin: Plugin, path: Path | None) -> Plugin:
    checksum = sha256_of(path) if path is not None else ""
    noted = Plugin(plugin.name, plugin.module, path, plugin.is_file, checksum)
    _loaded[plugin.module] = noted
    logger.debug("plug-in %s: %s", noted.name, path)
    return noted


@contextmanager
def _mistakes_told(where: str, name: str, show_traceback: bool) -> Iterator[None]:
    """Within this block a plug-in's mistake becomes one line with the place in its code."""
    try:
        with foreign_code(f"{where}: the plug-in {name}", "" if show_traceback else " (--debug shows the traceback)"):
            yield
    except UserError as error:
        if show_traceback and error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        if error.__cause__ is None and name not in str(error):  # a registry's, about a name
            raise UserError(f"{where}: the plug-in {name}{place_of(error)}: {error}") from error
        raise
