"""Before and after: whether the new weights are kept, a report and a picture."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from mambair.data.contracts import Sample
from mambair.engine.evaluate.run import Candidate
from mambair.engine.evaluate.validator import pass_through, upscale_bicubic
from mambair.imaging.files import read_image, write_image
from mambair.imaging.panels import busiest_crop, panel_row, stack_rows
from mambair.imaging.tensors import tensor_to_image
from mambair.runtime.files import atomic_write
from mambair.weights.loading import load_network, save_weights

LEAST_GAIN = 0.01
"""Decibels below which a gain is none."""
SHOWN = 3
CROP, ZOOM = 96, 2
WEIGHTS, REPORT, PICTURE = "weights.safetensors", "report.md", "before_after.png"


@dataclass(frozen=True)
class Verdict:
    """PSNR of the judged photos before and after."""

    before: Mapping[str, float]
    after: Mapping[str, float]

    @property
    def gain(self) -> float:
        """The mean difference in dB."""
        return float(np.mean([self.after[name] - self.before[name] for name in self.before]))

    @property
    def better(self) -> int:
        """How many photos are better."""
        return sum(self.after[name] > self.before[name] for name in self.before)

    @property
    def is_gain(self) -> bool:
        """Whether the new weights are worth keeping."""
        return self.gain >= LEAST_GAIN

    def sentence(self) -> str:
        """The outcome in words."""
        counted = f"{self.better} of {len(self.before)} photos that were not trained on are better"
        if self.is_gain:
            return f"gain: {self.gain:+.3f} dB PSNR; {counted}"
        return f"no gain: {self.gain:+.3f} dB PSNR ({counted}); the old weights are kept"


def judge(before: Candidate, after: Candidate) -> Verdict:
    """The verdict of two tests on the same photos."""
    (old,), (new,) = before.scores.values(), after.scores.values()
    return Verdict(
        {name: metrics["psnr"] for name, metrics in old.images.items()},
        {name: metrics["psnr"] for name, metrics in new.images.items()},
    )


def keep_weights(folder: Path, verdict: Verdict, start: Path, best: Path) -> Path:
    """Write the better of both weights as weights.safetensors."""
    target = folder / WEIGHTS
    if verdict.is_gain:
        save_weights(load_network(best), target)
    else:
        with atomic_write(target) as temporary:
            shutil.copyfile(start, temporary)
    return target


def write_report(folder: Path, verdict: Verdict, notes: list[str]) -> Path:
    """A table of the judged photos, and what was done."""
    lines = [
        "# Fine-tuning",
        "",
        verdict.sentence(),
        "",
        "| photo | before | after | difference |",
        "|---|---:|---:|---:|",
    ]
    for name, old in verdict.before.items():
        new = verdict.after[name]
        lines.append(f"| {name.replace('|', chr(92) + '|')} | {old:.2f} | {new:.2f} | {new - old:+.3f} |")
    means = [float(np.mean(list(values.values()))) for values in (verdict.before, verdict.after)]
    lines += [f"| mean PSNR in dB | {means[0]:.2f} | {means[1]:.2f} | {verdict.gain:+.3f} |", ""]
    lines += [f"- {note}" for note in notes]
    path = folder / REPORT
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_picture(folder: Path, before: Candidate, after: Candidate) -> Path:
    """The busiest crops of the first photos: input, before, after, ground truth."""
    ((name, dataset),) = before.datasets.items()
    scale = before.options.scale
    restore = upscale_bicubic(scale) if scale > 1 else pass_through
    rows = []
    for index, image in list(enumerate(before.scores[name].images))[:SHOWN]:
        sample = dataset[index]
        truth = tensor_to_image(cast(Sample, sample)["gt"])
        size = min(CROP, *truth.shape[:2])
        panels = {
            "Bicubic" if scale > 1 else "Input": tensor_to_image(restore(sample["lq"].unsqueeze(0))[0]),
            **{title: restored_image(each, name, image) for title, each in (("Before", before), ("After", after))},
            "Ground truth": truth,
        }
        shown = {title: as_color(panel) for title, panel in panels.items()}
        rows.append(panel_row(shown, busiest_crop(as_color(truth), size, scale), size, ZOOM))
    path = folder / PICTURE
    write_image(path, stack_rows(rows))
    return path


def restored_image(candidate: Candidate, dataset: str, image: str) -> np.ndarray:
    """What a test wrote of an image."""
    options = candidate.options
    folder = Path(options.path.root) / "results" / options.name / "visualization" / dataset
    return read_image(folder / f"{image}_{options.name}.png", "unchanged")


def as_color(image: np.ndarray) -> np.ndarray:
    """(H, W, 3), from (H, W, 1) too."""
    return image.repeat(3, axis=2) if image.shape[2] == 1 else image
