"""Tables of measured figures: on the terminal and as JSON."""

import json
import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numba
import numpy as np
import torch
from rich.console import Console
from rich.table import Table as RichTable

import mambair
from mambair.runtime.files import atomic_write

Value = str | float | int | None


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


@dataclass
class Report:
    """Tables in the order in which they were measured, and the machine they were measured on."""

    environment: dict[str, Value]
    tables: list[Table] = field(default_factory=list)

    def run(self, sections: Iterable[Callable[[Settings], Iterable[Table]]], settings: Settings) -> None:
        """Measure every section's tables, printing each as soon as it is there."""
        console = Console()
        for section in sections:
            for table in section(settings):
                self.tables.append(table)
                console.print(_render(table))

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


def _render(table: Table) -> RichTable:
    rendered = RichTable(title=table.title, caption=table.note or None, title_justify="left", caption_justify="left")
    for column in table.rows[0]:
        rendered.add_column(column, justify="left" if isinstance(table.rows[0][column], str) else "right")
    for row in table.rows:
        rendered.add_row(*(_format(value) for value in row.values()))
    return rendered


def _format(value: Value) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
