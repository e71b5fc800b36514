"""What weights can be for: the tasks that people name, and what a weight file states. No file is read here."""

import re
from dataclasses import dataclass

from mambair.errors import UserError

KINDS = ("sr", "denoise", "jpeg", "photo")
"""What a weight file can state as its task; its scale says the rest."""


@dataclass(frozen=True)
class Level:
    """The noise levels (sigma, 0-255) or JPEG qualities that a network is for: one, or a range for a blind network."""

    low: int
    high: int

    @classmethod
    def parse(cls, text: str) -> "Level | None":
        """`25` or `0-55`; None for any other text."""
        found = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", text)
        if found is None:
            return None
        low = int(found[1])
        high = low if found[2] is None else int(found[2])
        return cls(low, high) if low <= high else None

    @property
    def is_single(self) -> bool:
        """Whether the network is for one level alone."""
        return self.low == self.high

    def covers(self, level: int) -> bool:
        """Whether the network is for this level too."""
        return self.low <= level <= self.high

    def __str__(self) -> str:
        return str(self.low) if self.is_single else f"{self.low}-{self.high}"


@dataclass(frozen=True)
class Task:
    """A task that `--task` names."""

    kind: str
    """One of KINDS."""
    scale: int | None
    """Of the networks that serve it; None takes any that enlarges."""
    hint: str
    """When to use it, in a few words."""
    published: str | None = None
    """Name of the published weights to suggest; `{level}` stands for the noise level or quality."""
    usual_level: int | None = None
    """Which of those to suggest where no level is named."""

    @property
    def has_level(self) -> bool:
        """Whether a noise level or a JPEG quality means something."""
        return self.kind in ("denoise", "jpeg")

    def fits(self, kind: str | None, scale: int | None) -> bool:
        """Whether weights that state this serve the task."""
        return kind == self.kind and (scale == self.scale or (self.scale is None and (scale or 1) > 1))


_PHOTO = "old, scanned and much-copied photos with several faults at once"

TASKS: dict[str, Task] = {
    "sr": Task("sr", None, "clean, sharp photos, larger: x2 if it is there", "lightSR_x2"),
    "x2": Task("sr", 2, "clean, sharp photos, twice as large", "lightSR_x2"),
    "x3": Task("sr", 3, "clean, sharp photos, three times as large", "lightSR_x3"),
    "x4": Task("sr", 4, "clean, sharp photos, four times as large", "lightSR_x4"),
    "denoise": Task("denoise", 1, "grain, as of high ISO; same size", "ColorDN_{level}", 25),
    "jpeg": Task("jpeg", 1, "blocks and rings of JPEG compression; same size", "CAR_q{level}", 40),
    "photo": Task("photo", 1, f"{_PHOTO}; same size"),
    "photo_x1": Task("photo", 1, f"{_PHOTO}; same size"),
    "photo_x4": Task("photo", 4, f"{_PHOTO}; four times as large", "RealSR_x4"),
}
"""By the names that `--task` takes; `photo` is short for `photo_x1`."""

DEFAULT_TASK = "sr"


def find_task(name: str | None) -> Task:
    """The task of a name; the default one for None. Raises UserError for other names."""
    task = TASKS.get(DEFAULT_TASK if name is None else name)
    if task is None:
        raise UserError(f"task '{name}' is not known; use one of {', '.join(TASKS)}")
    return task


def task_name(kind: str | None, scale: int | None) -> str | None:
    """The name that `--task` has for weights that state this; None where none fits."""
    fitting = [name for name, task in TASKS.items() if task.scale is not None and task.fits(kind, scale)]
    return fitting[-1] if fitting else None  # of two names for one task the longer one, which says the scale


def check_level(name: str | None, level: int | None) -> None:
    """Raise UserError for a noise level or quality where the task has none."""
    if level is None or find_task(name).has_level:
        return
    what = f"task '{name}'" if name is not None else "super-resolution, the default task,"
    raise UserError(
        f"noise {level}: {what} has no noise level; name the task too (denoise or jpeg), or leave the noise out"
    )
