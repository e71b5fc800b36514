"""Building blocks of the option schema: the section base class and the value types YAML files need."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

LARGEST_NUMBER = 2**53
"""Beyond it floats are no longer whole numbers one by one; no option comes near."""

REGISTERED_KEY = "x-registered"
"""Where a JSON schema made of these types notes the kind of registry."""


class Section(BaseModel):
    """One block of an option file: typed, unchangeable, and closed to keys it does not know."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        protected_namespaces=(),
        ser_json_inf_nan="constants",  # as null, they would come back from a dump as keys without value
    )

    @model_validator(mode="before")
    @classmethod
    def _nothing_means_left_out(cls, values: Any) -> Any:
        """BasicSR files write `~` for keys they do not use."""
        if not isinstance(values, dict):
            return values
        optional = {name for name, information in cls.model_fields.items() if not information.is_required()}
        return {key: value for key, value in values.items() if value is not None or key not in optional}


@dataclass(frozen=True)
class Registered:
    """Marks the type of a field whose value names an entry of a registry, alone or as the `type` of a block.

    `kind` is the registry's own (`Registry.kind`). The checks of option files, the JSON schema and the option
    reference find the registry by it.
    """

    kind: str

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), REGISTERED_KEY: self.kind}


class ConflictError(ValueError):
    """Two keys that contradict each other; `key` is the path, relative to the section, of the one to blame."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


def _number(value: Any, expected: str) -> float | int:
    """`value` as a number; quoted numbers count, true/false do not."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ValueError(f"expected {expected}, got '{value}'") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"expected {expected}, got {describe(value)}")
    if not abs(value) <= LARGEST_NUMBER:  # NaN compares false
        raise ValueError(f"expected {expected}, got {describe(value)}")
    return value


def describe(value: Any) -> str:
    """How an error message shows a value of the wrong type."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a block of keys"
    if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        return "a number that is too large"  # printing thousands of digits is an error of its own
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def whole_number(value: Any) -> int:
    """An int from an int, a whole float (`!!float 5e3`) or the text of either ("5e3")."""
    number = _number(value, "a whole number")
    if number != int(number):
        raise ValueError(f"expected a whole number, got {value}")
    return int(number)


def real_number(value: Any) -> float:
    """A finite float from an int, a float or the text of either ("1e-4")."""
    return float(_number(value, "a number"))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {describe(value)}; put it in quotes")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, got {describe(value)}")
    return value


def _as_list(value: Any) -> list:
    """YAML files may write one value where a list is allowed, or nothing for an empty list."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _path(value: Any) -> Path:
    if isinstance(value, Path):
        return value.expanduser()
    text = _text(value)
    if not text or "\0" in text:
        raise ValueError("expected a path, got an empty one")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # `~name` of a user that does not exist
        raise ValueError(f"cannot expand '{text}': {error}") from None


def _gpu_count(value: Any) -> int | str:
    if value == "auto":
        return "auto"
    try:
        count = whole_number(value)
    except ValueError as error:
        raise ValueError(f"{error} (or 'auto')") from None
    if count < 0:
        raise ValueError(f"expected a number of GPUs or 'auto', got {count}")
    return count


def _tile(value: Any) -> int | str:
    if value in ("published", "none"):
        return value
    try:
        size = whole_number(value)
    except ValueError:
        raise ValueError(f"expected 'published', 'none' or a tile size in pixels, got {describe(value)}") from None
    if size < 16:
        raise ValueError(f"expected a tile size of at least 16 pixels, got {size}")
    return size


def _component(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected a block with 'type' and its keywords, got {describe(value)}")
    if not isinstance(value.get("type"), str):
        raise ValueError("key 'type' is missing" if "type" not in value else "key 'type' must be a name")
    return value


def _plain_name(value: str) -> str:
    """A name that is one folder: no separators, no '..', nothing a file system chokes on."""
    forbidden = [character for character in value if character in "/\\\0" or ord(character) < 32]
    if forbidden or value.strip() in ("", ".", "..") or len(value.encode()) > 200:
        raise ValueError(f"expected a plain folder name without '/' or '..', got {describe(value)}")
    return value


def _file_template(value: str) -> str:
    if value.count("{}") != 1 or any(character in value for character in "/\\\0"):
        raise ValueError(f"expected a file name with one '{{}}' and no folder, as '{{}}x2', got '{value}'")
    if value.replace("{}", "", 1).count("{") or value.replace("{}", "", 1).count("}"):
        raise ValueError(f"expected a file name with one '{{}}' and no other braces, got '{value}'")
    return value


def _range(value: list[float]) -> list[float]:
    if len(value) != 2 or value[0] > value[1]:
        raise ValueError(f"expected [low, high] with low <= high, got {value}")
    if value[0] < 0:
        raise ValueError(f"expected a range of numbers that are not negative, got {value}")
    return value


def _positive_range(value: list[float]) -> list[float]:
    if value[0] <= 0:
        raise ValueError(f"expected a range of numbers above 0, got {value}")
    return value


def _quality_range(value: list[float]) -> list[float]:
    if value[0] < 1 or value[1] > 100:
        raise ValueError(f"expected a range of JPEG qualities within 1 to 100, got {value}")
    return value


def _probabilities(value: list[float]) -> list[float]:
    if any(p < 0 or p > 1 for p in value) or abs(sum(value) - 1) > 1e-6:
        raise ValueError(f"expected probabilities that sum to 1, got {value} (sum {sum(value):g})")
    return value


Text = Annotated[str, BeforeValidator(_text)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Whole = Annotated[int, BeforeValidator(whole_number)]
Count = Annotated[Whole, Field(ge=0)]
Positive = Annotated[Whole, Field(ge=1)]
Real = Annotated[float, BeforeValidator(real_number)]
Probability = Annotated[Real, Field(ge=0, le=1)]
Range = Annotated[list[Real], AfterValidator(_range)]
PositiveRange = Annotated[Range, AfterValidator(_positive_range)]
QualityRange = Annotated[Range, AfterValidator(_quality_range)]
Probabilities = Annotated[list[Real], AfterValidator(_probabilities)]
FilePath = Annotated[Path, BeforeValidator(_path)]
PathList = Annotated[list[FilePath], BeforeValidator(_as_list, json_schema_input_type=Path | list[Path])]
SpecList = Annotated[list[Text], BeforeValidator(_as_list, json_schema_input_type=str | list[str])]
PlainName = Annotated[Text, AfterValidator(_plain_name)]
FileTemplate = Annotated[Text, AfterValidator(_file_template)]
GpuCount = Annotated[int | str, BeforeValidator(_gpu_count, json_schema_input_type=int | Literal["auto"])]
TileSize = Annotated[int | str, BeforeValidator(_tile, json_schema_input_type=int | Literal["published", "none"])]
Component = Annotated[dict[str, Any], BeforeValidator(_component)]
NetworkBlock = Annotated[Component, Registered("network")]
LossBlock = Annotated[Component, Registered("loss")]
MetricBlock = Annotated[Component, Registered("metric")]
OptimizerBlock = Annotated[Component, Registered("optimizer")]
SchedulerBlock = Annotated[Component, Registered("scheduler")]
AugmentationBlock = Annotated[Component, Registered("augmentation")]
DegradationBlock = Annotated[Component, Registered("degradation")]
DegradationList = Annotated[
    list[DegradationBlock], BeforeValidator(_as_list, json_schema_input_type=DegradationBlock | list[DegradationBlock])
]
ModelName = Annotated[Text, Registered("model")]
DatasetName = Annotated[Text, Registered("dataset")]
LossName = Annotated[Text, Registered("loss")]
Switch = Annotated[
    bool | Literal["auto"],
    BeforeValidator(
        lambda value: value if value == "auto" else _flag(value), json_schema_input_type=bool | Literal["auto"]
    ),
]
"""On, off, or decided by what pays."""

Precision = Literal["auto", "none", "bf16", "fp16"]
