"""The figures of the analyses, drawn with matplotlib (the extra `plots`)."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mambair.analysis.erf import display_map
from mambair.analysis.training_logs import SECONDS_PER_HOUR, LoggedRun, device_time
from mambair.engine.evaluate.tables import format_value
from mambair.errors import UserError
from mambair.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 120
GIGA = 1e9
SHOWN_DECIBELS = 3
AGAINST = ("iterations", "hours")
"""What the validations of runs may be drawn against."""
# The right panel of the scaling figure shows what grows at most so many times as fast as the number of pixels.
LINEAR_PANEL = 1.5


def require_matplotlib() -> None:
    """Raise UserError, before any long computation, if figures cannot be drawn."""
    if find_spec("matplotlib") is None:
        raise UserError("figures need matplotlib; install it with: pip install 'mambair[plots]'")


def save_scaling_figure(path: Path, sides: Sequence[int], flops: Mapping[str, Sequence[int]]) -> None:
    """Cost against input pixels, both relative to the smallest input: along the dashed line, growth is linear.

    Left all methods, right those alone that grow about linearly, which lie on top of each other on the left.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    pixels = np.square(sides)
    ceiling = LINEAR_PANEL * pixels[-1] / pixels[0]
    for (name, values), style, color in zip(flops.items(), itertools.cycle("osx^"), itertools.count()):
        label = f"{name} ({values[0] / GIGA:.1f} GFLOPs at {sides[0]}x{sides[0]})"
        growth = np.divide(values, values[0])
        for axes in panels if growth[-1] <= ceiling else panels[:1]:
            axes.plot(pixels, growth, marker=style, color=f"C{color}", label=label)
    for axes in panels:
        axes.plot(pixels, pixels / pixels[0], linestyle="--", color="gray", label="linear")
        axes.set_xticks(pixels, [f"{side}x{side}" for side in sides], rotation=45)
        axes.set(xlabel="input", ylabel=f"FLOPs relative to {sides[0]}x{sides[0]}", ylim=(0, None))
        axes.legend()
        axes.grid(alpha=0.3)
    figure.suptitle("Light networks, x2")
    _save(figure, path)


def save_receptive_field_figure(path: Path, maps: Mapping[str, np.ndarray]) -> None:
    """One heat map per network, on a logarithmic scale from a millionth of the largest contribution."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(maps) + 1, 4), layout="constrained")
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    for axes, (name, contributions) in zip(panels, maps.items(), strict=True):
        picture = axes.imshow(display_map(contributions), cmap="viridis", vmin=0, vmax=1)
        axes.set_title(name)
        axes.set_axis_off()
    bar = figure.colorbar(picture, ax=list(panels), ticks=(0, 0.5, 1))
    bar.ax.set_yticklabels(("$10^{-6}$", "$10^{-3}$", "1"))
    bar.set_label("contribution to the centre")
    _save(figure, path)


def save_activation_figure(path: Path, activations: Mapping[str, np.ndarray]) -> None:
    """Channel activations relative to the largest, sorted, one line per network."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, values in activations.items():
        ordered = np.sort(values)[::-1] / values.max()
        axes.plot(np.linspace(0, 1, len(ordered)), ordered, label=name)
    axes.set(
        xlabel="channels, strongest first",
        ylabel="activation of the last state-space module",
        xlim=(0, 1),
        ylim=(0, None),
    )
    axes.legend()
    axes.grid(alpha=0.3)
    _save(figure, path)


def save_training_figure(
    path: Path,
    runs: Sequence[LoggedRun],
    dataset: str,
    references: Mapping[str, float] | None = None,
    metric: str = "psnr",
    against: Sequence[str] = AGAINST,
) -> None:
    """A metric of the validations on a data set, a panel each for what it is drawn `against`.

    iterations; hours: device time (GPU hours). Each run is drawn over the iterations that it was validated at on this
    set. `references`: name -> value of horizontal lines to compare with. PSNR that lies far below the best of every run
    and below the references, as the first validations do, is left out: it would press the rest into a corner.
    """
    from matplotlib.figure import Figure

    references = references or {}
    unit = " dB" if metric == "psnr" else ""
    figure = Figure(figsize=(11 if len(against) > 1 else 8, 4.8), layout="constrained")
    panels = dict(zip(against, figure.subplots(1, len(against), sharey=True, squeeze=False)[0], strict=True))
    curves = []
    for run in runs:
        iterations = sorted(run.validations[dataset])
        curves.append([run.validations[dataset][iteration][metric] for iteration in iterations])
        hours = [run.device_seconds(iteration) / SECONDS_PER_HOUR for iteration in iterations]
        for way, axes in panels.items():
            positions = iterations if way == "iterations" else hours
            axes.plot(positions, curves[-1], marker=".", label=f"{run.name} ({run.parameters:,} parameters)")
    for axes in panels.values():
        for (name, value), style in zip(references.items(), itertools.cycle(("--", ":", "-."))):
            axes.axhline(value, linestyle=style, color="gray", label=f"{name} ({format_value(metric, value)}{unit})")
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    first = panels[against[0]]
    first.set(ylabel=f"{metric.upper()} on {dataset}{unit and ' (dB)'}")
    if metric == "psnr":
        first.set_ylim(shown_range(curves, references.values()))
    if "iterations" in panels:
        panels["iterations"].set(xlabel="iterations")
        panels["iterations"].xaxis.set_major_formatter("{x:,.0f}")
    if "hours" in panels:
        panels["hours"].set(xlabel=f"{device_time(runs, 'hours')} of computing")
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=1 + len(against), frameon=False)
    _save(figure, path)


def shown_range(curves: Sequence[Sequence[float]], references: Iterable[float] = ()) -> tuple[float, float]:
    """The range of dB to show: SHOWN_DECIBELS below the best of the curve that came least far, and all references."""
    values = [value for curve in curves for value in curve]
    bottom = max(min(values), min(max(curve) for curve in curves) - SHOWN_DECIBELS)
    ends = [bottom, max(values), *references]
    margin = max(0.05 * (max(ends) - min(ends)), 0.05)
    return min(ends) - margin, max(ends) + margin


def _save(figure: "Figure", path: Path) -> None:
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UserError(f"{path}: figures are written as .png, .pdf or .svg")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)
