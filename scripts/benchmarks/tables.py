"""Tables of measured figures: as Markdown and as JSON."""

import json
import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numba
import numpy as np
import torch

import mambair
from mambair.runtime.files import atomic_write
from mambair.runtime.markdown import markdown_table

Value = str | float | int | None

# Three digits are shown; larger numbers are shown whole.
WHOLE_FROM = 100


@dataclass(frozen=True)
class Table:
    """Rows of figures under one title; every row has the same keys, which are the columns."""

    title: str
    rows: list[dict[str, Value]]
    note: str = ""
    """How the figures were measured, printed below the table."""


@dataclass(frozen=True)
class Settings:
    """What the command line asks of every section."""

    threads: int
    """Threads of PyTorch and of the CPU kernels."""
    repeats: int
    """Measurements per figure, of which the median is given."""
    quick: bool
    """Small sizes, to see that everything runs; the figures mean nothing then."""
    only: tuple[str, ...] = ("plain", "start", "scan", "train", "infer", "v2")
    """Parts of the GPU section that are measured."""
    time_limit: float | None = None
    """Seconds after which the GPU section begins no further row; None for no limit."""


@dataclass
class Report:
    """Tables in the order in which they were measured, and the machine they were measured on."""

    environment: dict[str, Value]
    tables: list[Table] = field(default_factory=list)

    def run(
        self,
        sections: Iterable[Callable[[Settings], Iterable[Table]]],
        settings: Settings,
        file: Path | None = None,
    ) -> None:
        """Measure every section's tables and print them at the end, also after an interruption.

        They are written to `file`, if there is one, as soon as each is there.
        """
        try:
            for section in sections:
                for table in section(settings):
                    self.tables.append(table)
                    if file is not None:
                        self.write(file)
        finally:
            for table in self.tables:
                print(_render(table))

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        content = {"environment": self.environment, "tables": [asdict(table) for table in self.tables]}
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def describe_environment(settings: Settings) -> dict[str, Value]:
    """The machine and the versions that the figures belong to."""
    cpu_info = Path("/proc/cpuinfo")
    models = []
    if cpu_info.exists():
        lines = cpu_info.read_text(encoding="utf-8").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "mambair": mambair.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": models[0] if models else platform.processor(),
        "cores": len(models) or None,
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": settings.threads,
        "repeats": settings.repeats,
        "quick": settings.quick,
        "torch": torch.__version__,
        "numba": numba.__version__,
        "numpy": np.__version__,
        "cuda": torch.version.cuda,
        "gpu": gpu,
    }


def _render(table: Table) -> str:
    """The table in Markdown, under its title, with its note below."""
    lines = [f"## {table.title}", ""]
    if table.rows:
        columns = list(table.rows[0])
        words = [at for at, name in enumerate(columns) if any(isinstance(row[name], str) for row in table.rows)]
        cells = [columns, *([_format(row[name]) for name in columns] for row in table.rows)]
        lines.append(markdown_table(cells, words).rstrip())
    if table.note:
        lines += ["", table.note]
    return "\n".join([*lines, ""])


def _format(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= WHOLE_FROM else f"{value:.3g}"
    return str(value)
