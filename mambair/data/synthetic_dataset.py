"""Ground-truth images whose low-quality partners are made on the fly."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch.utils.data import Dataset

from mambair.data.contracts import Sample
from mambair.data.image_sources import ImageEntry
from mambair.data.synthesis import Degradation, degrade_window
from mambair.data.transforms import NO_SYMMETRIES, PLAIN_TENSOR, Symmetries, ToTensor, random_window
from mambair.imaging.files import printable
from mambair.imaging.resize import crop_to_multiple

_TEST_SEED = 0


class SyntheticDataset(Dataset):
    """Whole images degraded by the fixed test stream, random degraded patches for training.

    Args:
        entries: the ground truth.
        degradation: makes the partners; a training patch is degraded as it would be within its whole image.
        mode: read colour or gray images, or the luma (y).
        gt_size: side of the random ground-truth patch; whole images if left out.
        symmetries: drawn per training sample, after the degradation.
        to_tensor: luma and normalisation.
    """

    def __init__(
        self,
        entries: Sequence[ImageEntry],
        degradation: Degradation,
        *,
        mode: Literal["color", "gray", "y"] = "color",
        gt_size: int | None = None,
        symmetries: Symmetries = NO_SYMMETRIES,
        to_tensor: ToTensor = PLAIN_TENSOR,
    ) -> None:
        self.entries = list(entries)
        self.degradation = degradation
        self.mode = mode
        self.gt_size = gt_size
        self.symmetries = symmetries
        self.to_tensor = to_tensor
        self.paths = [entry.path for entry in entries]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        gt = self._read(index)
        # The stream of published tests: it starts anew for every image.
        return self._finish(index, gt, self.degradation(gt, np.random.RandomState(_TEST_SEED)))

    def sample(self, index: int, rng: np.random.Generator, gt_size: int | None = None) -> Sample:
        """Image `index` with a random patch, degradation and symmetry."""
        gt = self._read(index)
        size, scale = gt_size or self.gt_size, self.degradation.scale
        if size is None:
            lq = self.degradation(gt, rng)
        else:
            height, width = (length // scale for length in gt.shape[:2])
            window = random_window(height, width, size // scale, rng, printable(self.entries[index].path))
            gt, lq = degrade_window(gt, window.scaled(scale), self.degradation, rng)
        return self._finish(index, *self.symmetries.draw(rng, gt, lq))

    def _read(self, index: int) -> np.ndarray:
        return crop_to_multiple(self.entries[index].read(self.mode), self.degradation.scale)

    def _finish(self, index: int, gt: np.ndarray, lq: np.ndarray) -> Sample:
        path = self.entries[index].path
        return Sample(lq=self.to_tensor(lq), gt=self.to_tensor(gt), lq_path=path, gt_path=path)
