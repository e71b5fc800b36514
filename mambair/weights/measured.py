"""What was measured of the networks in the package: one file beside them, shipped/measured.json.

`scripts/model_tables.py record` writes it from a test's metrics.json; lists, the page and the documentation read it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from mambair.weights import sources

FILE = "measured.json"
SHOWN = 2


@dataclass(frozen=True)
class Measured:
    """The scores of one network."""

    scores: Mapping[str, Mapping[str, float]]
    """By data set: PSNR in dB and SSIM, by the keys psnr and ssim."""
    protocol: str
    """How they were measured, in words."""
    note: str = ""
    """What must be known about them."""

    def summary(self, shown: int = SHOWN) -> str:
        """'Set5 37.54/0.9592, McMaster 37.43/0.9595': the first data sets."""
        first = list(self.scores.items())[:shown]
        return ", ".join(f"{name} {score['psnr']:.2f}/{score['ssim']:.4f}" for name, score in first)


def measured() -> dict[str, Measured]:
    """The networks in the package that were measured, by name."""
    path = sources.SHIPPED_FOLDER / FILE
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {name: Measured(**entry) for name, entry in content.items()}
