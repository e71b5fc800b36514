"""What data sets give: the dictionary of one sample, and the protocol of training sets."""

from collections.abc import Mapping
from typing import Any, Protocol, TypedDict

import numpy as np
import torch


class LowQualitySample(TypedDict):
    """An image without ground truth."""

    lq: torch.Tensor
    """(C, H, W), float32, in [0, 1] unless a mean is subtracted or unclipped noise added."""
    lq_path: str
    """Its file; the ground truth's where the image was made on the fly."""


class Sample(LowQualitySample):
    """A pair of images."""

    gt: torch.Tensor
    """(C, H * scale, W * scale), float32."""
    gt_path: str
    """The ground truth's file."""


class TrainingDataset(Protocol):
    """A data set that training can draw from: a sample is a pure function of an index and a random generator.

    Progressive training calls `sample(index, rng, gt_size)`, where gt_size overrides the data set's own patch.
    """

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def sample(self, index: int, rng: np.random.Generator) -> Mapping[str, Any]:
        """Image `index` with random patch and symmetry; UserError or OSError where a file cannot be used."""
        ...


class EvaluationDataset(Protocol):
    """A data set of whole images in a fixed order."""

    paths: list[str]
    """The file that names each image: the ground truth where there is one."""

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def __getitem__(self, index: int) -> Sample | LowQualitySample:
        """Image `index`; UserError where its file cannot be used."""
        ...
