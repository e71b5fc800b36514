"""report.html of a test: the table, and for every image sliders between input, restored image and ground truth.

The page is one file without any reference to the network: images are embedded. Whole images are shown reduced and
lossily compressed; the crops in which the network changed most are shown pixel by pixel, lossless.

Shapes: images are uint8 (H, W, C), RGB or gray; H, W are those of the restored image.
"""

import base64
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np

from mambair.engine.evaluate.tables import MISSING, Marks, ResultTable, format_value
from mambair.engine.evaluate.validator import Judged
from mambair.imaging.files import encode_image
from mambair.imaging.resize import imresize
from mambair.runtime.files import atomic_write

VIEWS = ("input", "restored", "ground truth")
WHOLE_SIDE = 720
"""Longer side of a whole image as it is embedded, at most."""
WHOLE_QUALITY = 88
CROP_SIDE = 128
CROP_ZOOM = 2
CROPS = 3
SHOWN_IMAGES = 25
"""Images of a data set that the page shows; the most changed ones. One takes up to a megabyte."""

TEMPLATE = Path(__file__).with_name("report_template.html")
HTML_MARKS: Marks = (lambda text: f"<b>{text}</b>", lambda text: f"<u>{text}</u>")


@dataclass(frozen=True)
class View:
    """A slider: the same part of an image, encoded, once per entry of VIEWS that exists."""

    caption: str
    width: int
    """Pixels on the screen."""
    height: int
    sources: tuple[str, ...]
    """data: addresses."""


@dataclass(frozen=True)
class Entry:
    """One image of the page."""

    name: str
    change: float
    """Mean difference, in gray levels, between input and restored image in the most changed crop."""
    views: tuple[View, ...]


@dataclass
class ReportImages:
    """Collects what the page shows while a data set is judged; `keep` may be called from several threads."""

    datasets: dict[str, list[Entry]] = field(default_factory=dict)
    """Of each data set the most changed images, in falling order of change."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def keep(self, dataset: str, judged: Judged) -> None:
        """Take an image in."""
        entry = make_entry(judged)
        with self._lock:
            self.datasets[dataset] = most_changed_entries([*self.datasets.get(dataset, []), entry])

    def merge(self, parts: Sequence[Mapping[str, list[Entry]]]) -> None:
        """Replace the content by what all processes of a test collected."""
        self.datasets = {}
        for part in parts:
            for dataset, entries in part.items():
                self.datasets[dataset] = most_changed_entries([*self.datasets.get(dataset, []), *entries])


def most_changed_entries(entries: Sequence[Entry]) -> list[Entry]:
    """The entries that the page has room for, the most changed one first."""
    return sorted(entries, key=lambda entry: (-entry.change, entry.name))[:SHOWN_IMAGES]


def make_entry(judged: Judged) -> Entry:
    """The sliders of one image: the whole, then the crops that the network changed most."""
    layers = align_layers(judged)
    boxes = most_changed(layers[0], layers[1])
    views = [_whole(layers)]
    for top, left, side, change in boxes:
        parts = [layer[top : top + side, left : left + side] for layer in layers]
        height, width = parts[0].shape[:2]
        sources = tuple(_address(encode_image(part, ".webp"), "webp") for part in parts)
        caption = f"{width}x{height} pixels at ({left}, {top}), changed by {change:.1f} gray levels on average"
        views.append(View(caption, width * CROP_ZOOM, height * CROP_ZOOM, sources))
    return Entry(judged.name, boxes[0][3], tuple(views))


def align_layers(judged: Judged) -> list[np.ndarray]:
    """Input, restored image and (if there is one) ground truth, brought to one size and number of channels.

    A smaller input is enlarged by MATLAB's bicubic, the baseline of super-resolution.
    """
    height, width = judged.restored.shape[:2]
    source = judged.lq if judged.lq.shape[:2] == (height, width) else imresize(judged.lq, (height, width))
    layers = [source, judged.restored] + ([judged.gt] if judged.gt is not None else [])
    channels = max(layer.shape[2] for layer in layers)
    return [np.repeat(layer, channels // layer.shape[2], axis=2) for layer in layers]


def most_changed(before: np.ndarray, after: np.ndarray) -> list[tuple[int, int, int, float]]:
    """(top, left, side, change) of up to CROPS squares that overlap by less than half, the most changed one first."""
    height, width = before.shape[:2]
    side = min(CROP_SIDE, height, width)
    difference = np.abs(before.astype(np.float32) - after).mean(axis=2)
    sums = cv2.integral(difference)  # (H + 1, W + 1)
    means = (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]) / side**2
    boxes = []
    reach = side // 2
    for _ in range(CROPS):
        top, left = (int(place) for place in np.unravel_index(np.argmax(means), means.shape))
        if not np.isfinite(means[top, left]):
            break
        boxes.append((top, left, side, max(0.0, float(means[top, left]))))
        means[max(0, top - reach) : top + reach + 1, max(0, left - reach) : left + reach + 1] = -np.inf
    return boxes


def _whole(layers: Sequence[np.ndarray]) -> View:
    height, width = layers[0].shape[:2]
    factor = min(1.0, WHOLE_SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    sources = []
    for layer in layers:
        small = cv2.resize(layer, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)
        sources.append(_address(encode_image(small, ".jpg", jpeg_quality=WHOLE_QUALITY), "jpeg"))
    return View(f"the whole image, {width}x{height}", *size, tuple(sources))


def _address(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def write_html_report(
    path: Path, title: str, table: ResultTable, images: Mapping[str, Sequence[Entry]], notes: Sequence[str]
) -> None:
    """Write the page; `notes` say how the numbers came about."""
    sections = "\n".join(_section(dataset, entries, table) for dataset, entries in images.items())
    content = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        table=_table(table),
        notes="\n".join(f"<li>{escape(note)}</li>" for note in notes),
        sections=sections,
        views=json.dumps(VIEWS),
    )
    with atomic_write(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def _table(table: ResultTable) -> str:
    headings = "".join(f"<th>{escape(column.dataset)}<br>{column.metric.upper()}</th>" for column in table.columns)
    lines = [
        f"<tr><td>{escape(row.name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for row, cells in zip(table.rows, table.cells(HTML_MARKS), strict=True)
    ]
    return f"<table><thead><tr><th></th>{headings}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _section(dataset: str, entries: Sequence[Entry], table: ResultTable) -> str:
    """One data set: its most changed images."""
    shown = "\n".join(_article(dataset, entry, table) for entry in entries)
    judged = max((len(row.datasets[dataset].images) for row in table.rows if dataset in row.datasets), default=0)
    hidden = judged - len(entries)
    rest = f'<p class="notes">{hidden} images that changed less are left out.</p>' if hidden > 0 else ""
    return f"<section><h2>{escape(dataset)}</h2>\n{shown}\n{rest}</section>"


def _article(dataset: str, entry: Entry, table: ResultTable) -> str:
    scores = " &middot; ".join(_scores(dataset, entry.name, table))
    views = "\n".join(_figure(view, entry.name) for view in entry.views)
    line = f'<p class="scores">{scores}</p>' if scores else ""
    return f'<article><h3>{escape(entry.name)}</h3>{line}<div class="views">{views}</div></article>'


def _scores(dataset: str, name: str, table: ResultTable) -> list[str]:
    """The image's metrics, per line of the table."""
    lines = []
    for row in table.rows:
        values: dict[str, Any] = row.datasets[dataset].images.get(name, {}) if dataset in row.datasets else {}
        texts = [f"{metric.upper()} {format_value(metric, value)}" for metric, value in values.items()]
        if texts:
            lines.append(f"{escape(row.name)}: {escape(', '.join(texts) or MISSING)}")
    return lines


def _figure(view: View, name: str) -> str:
    images = "".join(
        f'<img data-view="{index}" src="{source}" alt="{escape(name, quote=True)}, {VIEWS[index]}" '
        f'width="{view.width}" height="{view.height}" loading="lazy">'
        for index, source in enumerate(view.sources)
    )
    handle = '<input type="range" min="0" max="100" step="0.1" value="50" aria-label="input or restored">'
    slider = f'<div class="slider" style="width: {view.width}px">{images}{handle}</div>'
    return f"<figure>{slider}<figcaption>{escape(view.caption)}</figcaption></figure>"
