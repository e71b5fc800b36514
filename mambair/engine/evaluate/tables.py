"""Results of tests: a table on the terminal, metrics.md and metrics.json."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from mambair.engine.evaluate.scoring import Scores
from mambair.runtime.files import atomic_write
from mambair.runtime.markdown import markdown_table

DECIMALS = {"psnr": 2}
"""Digits behind the point that tables show; four for metrics that are not named, as is usual for SSIM."""

DEFAULT_DECIMALS = 4
MISSING = "-"

Mark = Callable[[str], str]
Marks = tuple[Mark, Mark]
"""How the best and the second best value of a column are shown."""

TERMINAL_MARKS: Marks = (lambda text: f"[bold]{text}[/bold]", lambda text: f"[underline]{text}[/underline]")
MARKDOWN_MARKS: Marks = (lambda text: f"**{text}**", lambda text: f"<u>{text}</u>")


@dataclass
class Row:
    """One line of a table: a network or a baseline, with its scores per data set."""

    name: str
    datasets: dict[str, Scores] = field(default_factory=dict)
    is_network: bool = True
    """Baselines are shown, but not ranked."""


@dataclass(frozen=True)
class Column:
    """A metric on a data set."""

    dataset: str
    metric: str
    higher_is_better: bool = True


@dataclass(frozen=True)
class ResultTable:
    """Rows against (data set, metric) columns, values as text."""

    columns: list[Column]
    rows: list[Row]

    def values(self, column: Column) -> list[float | None]:
        """One column's means, None where a row has none."""
        return [
            row.datasets[column.dataset].means().get(column.metric) if column.dataset in row.datasets else None
            for row in self.rows
        ]

    def cells(self, marks: Marks) -> list[list[str]]:
        """Text per row and column; with several networks the best two of each column are marked."""
        shown = [self._column_cells(column, marks) for column in self.columns]
        return [[cells[index] for cells in shown] for index in range(len(self.rows))]

    def _column_cells(self, column: Column, marks: Marks) -> list[str]:
        values = self.values(column)
        texts = [format_value(column.metric, value) for value in values]
        ranked = [value for value, row in zip(values, self.rows, strict=True) if row.is_network and value is not None]
        if len(ranked) > 1:
            for mark, best in zip(marks, sorted(set(ranked), reverse=column.higher_is_better), strict=False):
                texts = [
                    mark(text) if row.is_network and value == best else text
                    for text, value, row in zip(texts, values, self.rows, strict=True)
                ]
        return texts

    def for_terminal(self, title: str) -> Table:
        """As a rich table."""
        table = Table(title=title, title_justify="left")
        table.add_column("")
        for column in self.columns:
            table.add_column(f"{escape(column.dataset)}\n{column.metric.upper()}", justify="right")
        for row, cells in zip(self.rows, self.cells(TERMINAL_MARKS), strict=True):
            table.add_row(escape(row.name), *cells)
        return table

    def as_markdown(self) -> str:
        """As a Markdown table."""
        header = ["", *(f"{column.dataset} {column.metric.upper()}" for column in self.columns)]
        body = [[row.name, *cells] for row, cells in zip(self.rows, self.cells(MARKDOWN_MARKS), strict=True)]
        return markdown_table([header, *body])


def make_table(rows: Sequence[Row], higher_is_better: Mapping[str, bool]) -> ResultTable:
    """The table of all data sets and metrics that any row has, in the order they appear."""
    columns = dict.fromkeys(
        Column(dataset, metric, higher_is_better[metric])
        for row in rows
        for dataset, scores in row.datasets.items()
        for metric in scores.means()
    )
    return ResultTable(list(columns), list(rows))


def format_value(metric: str, value: float | None) -> str:
    """A metric as tables show it."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return str(value)
    return f"{value:.{DECIMALS.get(metric, DEFAULT_DECIMALS)}f}"


def metrics_json(
    row: Row,
    baseline: Row | None,
    *,
    options: Mapping[str, Any],
    weights: str | None,
    protocol: Mapping[str, Any],
) -> dict[str, Any]:
    """What metrics.json holds: every mean and every image's value in full precision, and how they came about."""
    content: dict[str, Any] = {"datasets": {name: scores.as_json() for name, scores in row.datasets.items()}}
    if baseline is not None:
        content["baseline"] = {
            "name": baseline.name,
            "datasets": {name: scores.as_json() for name, scores in baseline.datasets.items()},
        }
    return content | {"options": dict(options), "weights": weights, "protocol": dict(protocol)}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file in one step. Infinite values (the PSNR of equal images) become the strings "inf", "nan"."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(finite(content), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_markdown(path: Path, title: str, table: ResultTable, notes: Sequence[str]) -> None:
    """Write a table with its title and notes below it."""
    lines = [f"# {title}", "", table.as_markdown(), *(f"- {note}" for note in notes)]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def finite(value: Any) -> Any:
    """`value` with non-finite floats as text: JSON has no numbers for them."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
