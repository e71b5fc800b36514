"""Registries: the names that option files may write after `type:`."""

import difflib
import inspect
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Generic, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from mambair.errors import UserError

T = TypeVar("T")

logger = logging.getLogger(__name__)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'; did you mean 'x'?' for the known word nearest to `word`, or '' when none is near."""
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def check_types(entry: Callable, keywords: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The keywords as the annotations of `entry` want them: 64.0 and '64' become 64 where an int is expected.

    Raises UserError that names the key for a value that is not of its type. Keys without annotation pass.
    """
    hints = get_type_hints(entry.__init__ if inspect.isclass(entry) else entry)
    checked = dict(keywords)
    for key in keywords.keys() & hints.keys():
        try:
            checked[key] = TypeAdapter(hints[key]).validate_python(keywords[key])
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise UserError(f"{where}: key '{key}' is {keywords[key]!r}: {reason[0].lower()}{reason[1:]}") from None
    return checked


class Registry(Generic[T]):
    """Classes or functions of one kind, by the name an option file uses for them.

    Registration is explicit (`@ARCHS.register()`), a name can be taken once, and `build` checks keywords
    against the constructor's own signature, so that no second schema has to be kept in step with it.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Callable[..., T]] = {}
        self._ignored_keys: dict[str, frozenset[str]] = {}

    def register(self, name: str | None = None, *, ignored_keys: Collection[str] = ()) -> Callable:
        """Register a class or function under `name` (default: its own).

        `ignored_keys` are keys that published option files carry and that never had an effect: they are
        dropped with a warning.
        """

        def decorator(entry: Callable[..., T]) -> Callable[..., T]:
            key = name or entry.__name__
            if key in self._entries:
                raise KeyError(f"{self.kind} '{key}' is registered twice")
            self._entries[key] = entry
            self._ignored_keys[key] = frozenset(ignored_keys)
            return entry

        return decorator

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self._entries)

    def ignored_keys(self, name: str) -> frozenset[str]:
        """Keys that are accepted for an entry without having an effect."""
        return self._ignored_keys[name]

    def get(self, name: str, where: str | None = None) -> Callable[..., T]:
        """The entry called `name`; `where` is the option key to blame when there is none."""
        if name not in self._entries:
            hint = did_you_mean(name, self._entries) or f"; known: {', '.join(self.names())}"
            raise UserError(f"{where or self.kind}: unknown {self.kind} '{name}'{hint}")
        return self._entries[name]

    def keywords(self, options: Mapping[str, Any], where: str | None = None) -> dict[str, Any]:
        """Check `{'type': name, **keywords}` against the entry's signature and return the keywords.

        Values are converted to the types that the signature is annotated with. Raises UserError for a missing
        type, an unknown key (with a suggestion) and a value of the wrong type.
        """
        where = where or self.kind
        if "type" not in options:
            raise UserError(f"{where}: key 'type' is missing; known types: {', '.join(self.names())}")
        name = options["type"]
        parameters = inspect.signature(self.get(name, where)).parameters
        keywords = {key: value for key, value in options.items() if key != "type"}
        for key in sorted(keywords.keys() & self._ignored_keys[name]):
            logger.warning("%s: key '%s' has no effect on %s and is ignored", where, key, name)
            del keywords[key]
        for key in keywords:
            if key not in parameters:
                raise UserError(f"{where}: unknown key '{key}' for {name}{did_you_mean(key, parameters)}")
        return check_types(self.get(name, where), keywords, where)

    def build(self, options: Mapping[str, Any], *, where: str | None = None, **context: Any) -> T:
        """Construct the entry that `{'type': name, **keywords}` describes.

        `context` are arguments that come from the program (not from the option file), such as
        the parameters of an optimiser. Raises UserError for values that the entry, or what it is built on, refuses.
        """
        where = where or self.kind
        keywords = self.keywords(options, where)
        entry = self.get(options["type"], where)
        for key, parameter in inspect.signature(entry).parameters.items():
            required = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
            if required and key not in keywords and key not in context:
                raise UserError(f"{where}: key '{key}' is missing; {options['type']} needs it")
        try:
            return entry(**keywords, **context)
        except UserError:
            raise
        except (ValueError, IndexError, RuntimeError) as error:  # torch's, for a learning rate or a width below zero
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{where}: {options['type']} cannot be built from these values ({reason})") from error


ARCHS: Registry = Registry("network")
DATASETS: Registry = Registry("dataset")
LOSSES: Registry = Registry("loss")
METRICS: Registry = Registry("metric")
MODELS: Registry = Registry("model")
