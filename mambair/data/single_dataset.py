"""Images without ground truth."""

from collections.abc import Sequence
from typing import Literal

from torch.utils.data import Dataset

from mambair.data.contracts import LowQualitySample
from mambair.data.image_sources import ImageEntry
from mambair.data.transforms import PLAIN_TENSOR, ToTensor


class SingleImageDataset(Dataset):
    """Low-quality images to restore. Gray files count as colour ones with equal channels; alpha is dropped.

    Args:
        entries: the images.
        mode: read colour or gray images.
        to_tensor: luma and normalisation.
    """

    def __init__(
        self,
        entries: Sequence[ImageEntry],
        *,
        mode: Literal["color", "gray"] = "color",
        to_tensor: ToTensor = PLAIN_TENSOR,
    ) -> None:
        self.entries = list(entries)
        self.mode = mode
        self.to_tensor = to_tensor
        self.paths = [entry.path for entry in entries]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> LowQualitySample:
        entry = self.entries[index]
        lq = self.to_tensor(entry.read(self.mode))
        return LowQualitySample(lq=lq, lq_path=entry.path)
