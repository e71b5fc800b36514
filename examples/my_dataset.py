"""A data set of one's own: photos of a folder, with low-quality images that it makes itself."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch.utils.data import Dataset

from mambair.imaging.files import list_images, read_image
from mambair.imaging.tensors import image_to_tensor
from mambair.registry import DATASETS


@DATASETS.register()
class MyDataset(Dataset):
    """Photos, blurred and subsampled. The keys of the option file's section arrive here as keywords."""

    def __init__(self, dataroot_gt: Path, scale: int, gt_size: int = 64, blur: int = 2) -> None:
        self.files = list_images(dataroot_gt)
        self.paths = [str(file) for file in self.files]
        self.scale, self.gt_size, self.blur = scale, gt_size, blur

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A whole photo, for validation and tests."""
        photo = read_image(self.files[index], "color")
        height, width = (side - side % self.scale for side in photo.shape[:2])
        return self._pair(photo[:height, :width])

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """A random patch, for training; what is random comes from `rng`, so that runs can be repeated."""
        photo = read_image(self.files[index], "color")
        top, left = (int(rng.integers(side - self.gt_size + 1)) for side in photo.shape[:2])
        return self._pair(photo[top : top + self.gt_size, left : left + self.gt_size])

    def _pair(self, gt: np.ndarray) -> dict[str, Any]:
        """(H, W, 3) uint8 -> {"lq": (3, H/s, W/s), "gt": (3, H, W)}, float32 in [0, 1]."""
        lq = cv2.blur(gt, (self.blur, self.blur))[:: self.scale, :: self.scale]
        return {"lq": image_to_tensor(lq), "gt": image_to_tensor(gt)}
