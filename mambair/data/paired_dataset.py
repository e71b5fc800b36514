"""Pairs of ground truth and low-quality images that both lie on disk."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch.utils.data import Dataset

from mambair.data.contracts import Sample
from mambair.data.pairing import Pair
from mambair.data.transforms import NO_SYMMETRIES, PLAIN_TENSOR, Symmetries, ToTensor, random_window
from mambair.errors import UserError
from mambair.imaging.files import printable


class PairedImageDataset(Dataset):
    """Whole pairs by index for tests, random aligned patches for training.

    Args:
        pairs: from `mambair.data.pairing.pair_images`.
        scale: the ground truth is this many times as large.
        mode: read colour or gray images, or the luma (y).
        gt_size: side of the random ground-truth patch; whole images if left out.
        symmetries: drawn per training sample.
        to_tensor: luma and normalisation.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        scale: int = 1,
        mode: Literal["color", "gray", "y"] = "color",
        gt_size: int | None = None,
        symmetries: Symmetries = NO_SYMMETRIES,
        to_tensor: ToTensor = PLAIN_TENSOR,
    ) -> None:
        self.pairs = list(pairs)
        self.scale = scale
        self.mode = mode
        self.gt_size = gt_size
        self.symmetries = symmetries
        self.to_tensor = to_tensor
        self.paths = [pair.gt.path for pair in pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        return self._finish(index, *self._read(index))

    def sample(self, index: int, rng: np.random.Generator, gt_size: int | None = None) -> Sample:
        """Pair `index` with a random patch and symmetry."""
        gt, lq = self._read(index)
        size = gt_size or self.gt_size
        if size is not None:
            name = printable(self.pairs[index].partner.path)
            window = random_window(lq.shape[0], lq.shape[1], size // self.scale, rng, name)
            gt, lq = window.scaled(self.scale).cut(gt), window.cut(lq)
        return self._finish(index, *self.symmetries.draw(rng, gt, lq))

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Both images, the ground truth without the last rows and columns that its partner does not cover."""
        pair = self.pairs[index]
        gt, lq = pair.gt.read(self.mode), pair.partner.read(self.mode)
        height, width = (length // self.scale for length in gt.shape[:2])
        if lq.shape[:2] != (height, width):
            raise UserError(
                f"{printable(pair.partner.path)}: {lq.shape[0]}x{lq.shape[1]} pixels do not fit its ground truth of "
                f"{gt.shape[0]}x{gt.shape[1]} at scale {self.scale}"
            )
        return gt[: height * self.scale, : width * self.scale], lq

    def _finish(self, index: int, gt: np.ndarray, lq: np.ndarray) -> Sample:
        pair = self.pairs[index]
        return Sample(lq=self.to_tensor(lq), gt=self.to_tensor(gt), lq_path=pair.partner.path, gt_path=pair.gt.path)
