"""Registries: the names that option files may write after `type:`. `mambair.contracts` says what stands behind them."""

import difflib
import functools
import inspect
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from mambair.contracts import Augmentation, Degradation, Metric, ModelClass, Schedule
from mambair.errors import UserError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

Built = TypeVar("Built")
"""What an entry gives when it is called with its keywords."""
Registered = TypeVar("Registered", bound=Callable[..., Any])

_NEAR = 0.6
_MOST_LISTED = 8
"""Keys that a line of an error names; of more the option reference tells."""
_KIND = re.compile(r"(?<=.)[A-Z][a-z]{2,}$")
"""The last word of a name such as L1Loss or PairedImageDataset."""
_METRIC_PREFIX = "calculate_"

PACKAGE = __name__.partition(".")[0]

logger = logging.getLogger(__name__)

_loading: list[str] = []
"""The plug-ins that are being loaded, the innermost last."""


@functools.cache
def _warn_once(message: str) -> None:
    """A file's keys are looked at more than once: when it is checked, and when what it describes is built."""
    logger.warning(message)


@contextmanager
def registering_for(plugin: str) -> Iterator[None]:
    """Within this block what is registered is noted as the plug-in's."""
    _loading.append(plugin)
    try:
        yield
    finally:
        _loading.pop()


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'; did you mean 'x'?' for the known word nearest to `word`, or '' when none is near.

    What says nothing is not compared: SSIMLoss is not near MSELoss because both are losses.
    """
    nearness = {each: _nearness(word, each) for each in known}
    best = max(nearness, key=lambda each: nearness[each], default="")
    return f"; did you mean '{best}'?" if nearness.get(best, 0) >= _NEAR else ""


def _all_of(keys: Sequence[str]) -> str:
    """'; it takes a, b' where there are few keys, or '' where a line would not hold them."""
    if len(keys) > _MOST_LISTED:
        return ""
    return f"; it takes {', '.join(keys) or 'none'}"


def _nearness(word: str, other: str) -> float:
    """From 0 to 1, of what two words do not share by their kind."""
    kind = _KIND.search(word)
    if kind and other.endswith(kind[0]) and len(other) > len(kind[0]):
        word, other = word.removesuffix(kind[0]), other.removesuffix(kind[0])
    if word.startswith(_METRIC_PREFIX) and other.startswith(_METRIC_PREFIX):
        word, other = word.removeprefix(_METRIC_PREFIX), other.removeprefix(_METRIC_PREFIX)
    return difflib.SequenceMatcher(None, other, word).ratio()


def type_hints(entry: Callable[..., Any]) -> dict[str, Any]:
    """The types that the keywords of a class or function are annotated with, none where they cannot be found out."""
    try:
        return get_type_hints(entry.__init__ if inspect.isclass(entry) else entry)
    except (NameError, AttributeError, TypeError):  # somebody's annotation of what is only there for type checkers
        return {}


def check_types(entry: Callable[..., Any], keywords: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The keywords as the annotations of `entry` want them: 64.0 and '64' become 64 where an int is expected.

    Raises UserError that names the key for a value that is not of its type. Keys without annotation pass, and those
    with one that says nothing about plain data.
    """
    hints = type_hints(entry)
    checked = dict(keywords)
    for key in keywords.keys() & hints.keys():
        try:
            checked[key] = _adapter(hints[key]).validate_python(keywords[key])
        except PydanticUserError:
            continue
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise UserError(f"{where}: key '{key}' is {keywords[key]!r}: {reason[0].lower()}{reason[1:]}") from None
    return checked


def _adapter(hint: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(hint)
    except PydanticUserError:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))


MOST_OWNERS = 3
"""Names that a message lists as those that a key belongs to."""


@dataclass(frozen=True)
class Entry:
    """What is known about a name."""

    build: Callable[..., Any]
    """The class or function."""
    plugin: str | None
    """The plug-in file or module that registered it; None for this package's own."""
    ignored_keys: frozenset[str]
    """Keys that are dropped with a warning."""
    replaces: bool
    """Whether it takes the place of another one of its name."""


class Registry(Generic[Built]):
    """Classes or functions of one kind, by the name an option file uses for them.

    Registration is explicit (`@ARCHS.register()`), a name can be taken once, and `build` checks keywords against the
    constructor's own signature, so that no second schema has to be kept in step with it.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def register(
        self, name: str | None = None, *, ignored_keys: Collection[str] = (), replace: bool = False
    ) -> Callable[[Registered], Registered]:
        """Register a class or function under `name` (default: its own).

        Args:
            ignored_keys: keys that published option files carry and that never had an effect: they are dropped with a
                warning.
            replace: take the place of what is registered under this name, which is an error otherwise (UserError).
        """

        def decorator(entry: Registered) -> Registered:
            plugin = _loading[-1] if _loading and is_foreign(entry) else None
            self._add(name or entry.__name__, Entry(entry, plugin, frozenset(ignored_keys), replace))
            return entry

        return decorator

    def add_library(self, entries: Mapping[str, Callable[..., Any]]) -> None:
        """Register what a library offers, but for names that are taken."""
        for name, entry in entries.items():
            self._entries.setdefault(name, Entry(entry, None, frozenset(), False))

    def _add(self, name: str, new: Entry) -> None:
        old = self._entries.get(name)
        if old is None or new.replaces:
            self._entries[name] = new
        elif old.plugin is None or new.plugin is not None:
            owner = f"plug-in {old.plugin}" if old.plugin else PACKAGE
            raise UserError(
                f"{self.kind} '{name}' is taken by {owner}; register it under another name, or with replace=True"
            )
        elif not old.replaces:  # the package's own modules may be imported after a plug-in
            raise UserError(
                f"{self.kind} '{name}' of plug-in {old.plugin} is taken by {PACKAGE}; register it under another name, "
                "or with replace=True"
            )

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self._entries)

    def ignored_keys(self, name: str) -> frozenset[str]:
        """Keys that are accepted for an entry without having an effect."""
        return self._entries[name].ignored_keys

    def plugin_of(self, name: str) -> str | None:
        """The plug-in that registered a name; None for this package's own, and for a name that is not there."""
        return self._entries[name].plugin if name in self._entries else None

    def get(self, name: str, where: str | None = None) -> Callable[..., Built]:
        """The entry called `name`; `where` is the option key to blame when there is none."""
        if name not in self._entries:
            hint = did_you_mean(name, self._entries) or f"; known: {', '.join(self.names())}"
            raise UserError(f"{where or self.kind}: unknown {self.kind} '{name}'{hint}")
        return self._entries[name].build

    def keywords(
        self, options: Mapping[str, Any], where: str | None = None, *, given: Collection[str] = ()
    ) -> dict[str, Any]:
        """Check `{'type': name, **keywords}` against the entry's signature and return the keywords.

        Values are converted to the types that the signature is annotated with; `given` are parameters that the program
        fills, and no option file may. Raises UserError for a missing type, an unknown key (with a suggestion) and a
        value of the wrong type.
        """
        where = where or self.kind
        if "type" not in options:
            raise UserError(f"{where}: key 'type' is missing; known types: {', '.join(self.names())}")
        name = options["type"]
        entry = self.get(name, where)
        parameters = keyword_parameters(entry)
        keywords = {key: value for key, value in options.items() if key != "type"}
        for key in sorted(keywords.keys() & self._entries[name].ignored_keys):
            if keywords.pop(key) is not False:  # what is off asks for nothing
                _warn_once(f"{where}: key '{key}' has no effect on {name} and is ignored")
        if not takes_any_keyword(entry):
            known = [key for key in parameters if key not in given]
            for key in keywords:
                if key not in known:
                    hint = ("" if key in given else self._owners_of(key)) or did_you_mean(key, known) or _all_of(known)
                    raise UserError(f"{where}: unknown key '{key}' for {name}{hint}")
        return check_types(entry, keywords, where)

    def _owners_of(self, key: str) -> str:
        """'; it is a key of X and Y: ...' for a key that a few other entries take, or '' when none or many do."""
        owners = [name for name in self._entries if key in keyword_parameters(self.get(name))]
        if not 1 <= len(owners) <= MOST_OWNERS:
            return ""
        return f"; it is a key of {' and '.join(owners)}: set 'type' to that, or leave the key out"

    def build(self, options: Mapping[str, Any], *, where: str | None = None, **context: Any) -> Built:
        """Construct the entry that `{'type': name, **keywords}` describes.

        `context` are arguments that come from the program (not from the option file), such as
        the parameters of an optimiser. Raises UserError for values that the entry, or what it is built on, refuses.
        """
        where = where or self.kind
        keywords = self.keywords(options, where, given=context)
        entry = self.get(options["type"], where)
        for key, parameter in keyword_parameters(entry).items():
            if parameter.default is parameter.empty and key not in keywords and key not in context:
                raise UserError(f"{where}: key '{key}' is missing; {options['type']} needs it")
        try:
            return entry(**keywords, **context)
        except UserError:
            raise
        except (ValueError, IndexError, RuntimeError) as error:  # torch's, for a learning rate or a width below zero
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{where}: {options['type']} cannot be built from these values ({reason})") from error


class MetricRegistry(Registry[float]):
    """Metrics, which also say in which direction they are better."""

    def register(
        self,
        name: str | None = None,
        *,
        ignored_keys: Collection[str] = (),
        replace: bool = False,
        higher_is_better: bool | None = None,
        smallest_side: int | None = None,
    ) -> Callable[[Registered], Registered]:
        """As `Registry.register`; `higher_is_better` and `smallest_side` become attributes of the function.

        Left out, the function has the former already, or the option file says `better: higher` or `lower`. The latter
        is the side in pixels, after cropping, of the smallest image that can be judged.
        """
        decorator = super().register(name, ignored_keys=ignored_keys, replace=replace)

        def with_direction(entry: Registered) -> Registered:
            if higher_is_better is not None:
                vars(entry)["higher_is_better"] = higher_is_better
            if smallest_side is not None:
                vars(entry)["smallest_side"] = smallest_side
            return decorator(entry)

        return with_direction

    def get(self, name: str, where: str | None = None) -> Metric:
        return cast(Metric, super().get(name, where))


class ModelRegistry(Registry[Any]):
    """Classes of models, which are made by their `from_options`."""

    def named(self, name: str, where: str | None = None) -> ModelClass:
        """The class called `name`; UserError where there is none, or it cannot be made from options."""
        entry = self.get(name, where)
        if not callable(getattr(entry, "from_options", None)):
            raise UserError(
                f"{where or self.kind}: '{name}' has no classmethod from_options(options, device); derive it from "
                "mambair.models.restoration_model.RestorationModel"
            )
        return cast(ModelClass, entry)


def keyword_parameters(entry: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a class or function that can be given by name."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: parameter for name, parameter in inspect.signature(entry).parameters.items() if parameter.kind in kinds
    }


def takes_any_keyword(entry: Callable[..., Any]) -> bool:
    """Whether a class or function has **keywords, which only other people's parts have."""
    return any(each.kind is each.VAR_KEYWORD for each in inspect.signature(entry).parameters.values())


def is_foreign(entry: Callable[..., Any]) -> bool:
    """Whether a class or function is not this package's."""
    return entry.__module__.partition(".")[0] != PACKAGE


ARCHS: "Registry[nn.Module]" = Registry("network")
DATASETS: Registry[Any] = Registry("dataset")
LOSSES: Registry[Any] = Registry("loss")
METRICS = MetricRegistry("metric")
MODELS = ModelRegistry("model")
OPTIMIZERS: "Registry[Optimizer]" = Registry("optimizer")
SCHEDULERS: Registry[Schedule] = Registry("scheduler")
AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation")
DEGRADATIONS: Registry[Degradation] = Registry("degradation")
