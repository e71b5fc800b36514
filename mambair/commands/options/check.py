"""`mambair options check`: all that an option file says, without reading data: sections, components, network."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mambair.archs import build_network
from mambair.commands.options.components import PROGRAM_ARGUMENTS, registries
from mambair.errors import UserError
from mambair.models.optimizers import register_from_libraries
from mambair.options import OptionMistakes, TestOptions, TrainOptions
from mambair.options.walking import Setting, walk
from mambair.registry import LOSSES, Registry
from mambair.weights.sources import weights_called

_PLACE = re.compile(r"(.*?):(\d+): ")


def mistakes(options: TrainOptions | TestOptions) -> list[str]:
    """One line for each thing that is wrong with components; sections have been checked by parsing."""
    found = component_mistakes(options)
    if not found:
        try:
            build_network(options.network_g, where=options.where("network_g"))
        except UserError as error:
            found.append(str(error))
    return found


def component_mistakes(options: TrainOptions | TestOptions) -> list[str]:
    """One line for each thing that is wrong with the names and keywords of components; nothing is built."""
    found: list[str] = []
    for setting in walk(options):
        found += _component_mistakes(options, setting)
    if isinstance(options, TrainOptions):
        for index, loss in enumerate(options.train.losses):
            found += _block_mistakes(LOSSES, loss.component, options.where(f"train.losses.{index}"))
    return found


@contextmanager
def all_mistakes_told() -> Iterator[None]:
    """Where parsing finds sections mistaken, tell what is wrong with components and weights of the rest as well."""
    try:
        yield
    except OptionMistakes as error:
        found = str(error).splitlines()
        if error.rest is not None:
            found += [*component_mistakes(error.rest), *missing_files(error.rest)]
        raise UserError("\n".join(_in_order(found))) from None


def _in_order(found: Sequence[str]) -> list[str]:
    """File by file, by the line that each names; each thing once."""
    places = {line: _PLACE.match(line) for line in found}
    files = list(dict.fromkeys(place[1] for place in places.values() if place))

    def order(line: str) -> tuple[int, int]:
        place = places[line]
        return (files.index(place[1]), int(place[2])) if place else (-1, 0)

    return sorted(places, key=order)


def refuse_mistakes(files: Sequence[TrainOptions | TestOptions]) -> None:
    """Raise one UserError for all that is wrong with the components of option files, and with the weights they name.

    Weights alone are left to those who load them, or need not, as a run that goes on does.
    """
    found = [mistake for options in files for mistake in component_mistakes(options)]
    if found:
        found += [line for options in files for line in missing_files(options)]
        raise UserError("\n".join(_in_order(found)))


def _block_mistakes(registry: Registry, block: Mapping[str, Any], where: str) -> list[str]:
    try:
        check_block(registry, block, where)
    except UserError as error:
        return [str(error)]
    return []


def _component_mistakes(options: TrainOptions | TestOptions, setting: Setting) -> Iterator[str]:
    registry = registries().get(setting.registered or "")
    if registry is None:
        return
    try:
        if isinstance(setting.value, str):
            registry.get(setting.value, options.where(setting.key))
        for path, block in setting.components():
            check_block(registry, block, options.where(".".join(path)))
    except UserError as error:
        yield str(error)


def check_block(registry: Registry, block: Mapping[str, Any], where: str) -> None:
    """Raise UserError for an unknown name, an unknown or mistyped keyword, and one that is missing."""
    if registry.kind == "network" and block["type"] not in registry:
        return  # a network of another package, which building it looks up
    if registry.kind == "optimizer" and block["type"] not in registry:
        register_from_libraries(block["type"], where)
    keywords = registry.keywords(block, where)
    for key, parameter in inspect.signature(registry.get(block["type"])).parameters.items():
        is_variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        is_needed = parameter.default is parameter.empty and not is_variadic and key not in PROGRAM_ARGUMENTS
        if is_needed and key not in keywords:
            raise UserError(f"{where}: key '{key}' is missing; {block['type']} needs it")


def missing_files(options: TrainOptions | TestOptions) -> Iterator[str]:
    """A line for each file of weights or states that is named and not there (yet)."""
    for key in ("pretrain_network_g", "pretrain_network_d", "resume_state"):
        path: Path | None = getattr(options.path, key)
        if path is None or path.is_file():
            continue
        where = options.where(f"path.{key}")
        try:
            if weights_called(str(path)) is None:
                yield f"{where}: there is no file {path} yet"
        except UserError as error:
            yield f"{where}: {error}"


def summary(options: TrainOptions | TestOptions) -> str:
    """What the file is for, in one line."""
    network = f"{options.network_g['type']} x{options.scale}"
    sets = ", ".join(options.evaluation_datasets()) or "no data set"
    if not isinstance(options, TrainOptions):
        return f"tests {network} on {sets}"
    stages = options.stages(world_size=1)
    batch = " then ".join(dict.fromkeys(str(stage.total_batch) for stage in stages))
    watched = f", validated on {sets}" if options.val is not None and options.val.val_freq else ""
    return f"trains {network} for {options.train.total_iter:,} iterations of {batch} images{watched}"
