"""Numbered draws from a training set, and what happens when a file has gone bad."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset, default_collate

from mambair.data.augmentations import AugmentationChain
from mambair.data.contracts import TrainingDataset
from mambair.data.samplers import Draw
from mambair.errors import UserError
from mambair.options.plugins import Plugin, load_again, loaded_plugins

BAD_SAMPLES = "bad_samples"

_ATTEMPTS = 10
# What a seed sequence is for: keeps the streams of one seed apart.
_ORDER, _SAMPLE, _SUBSTITUTE, _AUGMENTATION = range(4)


class BadSample(NamedTuple):
    """An image that could not be used, and for which another one was taken."""

    number: int
    """Of the image in the data set."""
    message: str
    """Path and reason, one line."""


@dataclass(frozen=True)
class LoadingFailed:
    """In place of a sample or batch: the message of a UserError to raise in the main process.

    Raised in a loader process it would reach the user wrapped in that process's traceback.
    """

    message: str


class SeededDataset(Dataset):
    """The samples of a training set by draw: a pure function of the seed, the draw's number and the files.

    One epoch goes through every image `enlarge_ratio` times, in a random order (or as listed, without `shuffle`).
    Where a file cannot be used, another image takes its place and the sample lists BadSamples under 'bad_samples'.
    `augment` changes the pairs, by a random stream of its own.
    """

    def __init__(
        self,
        dataset: TrainingDataset,
        seed: int,
        *,
        enlarge_ratio: int = 1,
        shuffle: bool = True,
        augment: AugmentationChain | None = None,
    ) -> None:
        self.dataset = dataset
        self.augment = augment
        self.seed = seed
        self.shuffle = shuffle
        self.epoch_length = len(dataset) * enlarge_ratio
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def index_of(self, number: int) -> int:
        """The image that draw `number` takes."""
        epoch, position = divmod(number, self.epoch_length)
        if self.shuffle:
            if epoch != self._epoch:
                self._order = np.random.default_rng((self.seed, _ORDER, epoch)).permutation(self.epoch_length)
                self._epoch = epoch
            position = int(self._order[position])
        return position % len(self.dataset)

    def __reduce__(self) -> tuple[Any, ...]:
        """For workers that are started anew: they must have the plug-ins before what these define is unpickled."""
        return _rebuilt, (loaded_plugins(), pickle.dumps(self.__dict__))

    def __getitem__(self, draw: Draw) -> dict[str, Any] | LoadingFailed:
        index = self.index_of(draw.number)
        substitutes = np.random.default_rng((self.seed, _SUBSTITUTE, draw.number))
        own_patch = () if draw.gt_size is None else (draw.gt_size,)
        bad: list[BadSample] = []
        for _ in range(_ATTEMPTS):
            rng = np.random.default_rng((self.seed, _SAMPLE, draw.number))
            try:
                sample = dict(self.dataset.sample(index, rng, *own_patch))
            except (UserError, OSError) as error:
                bad.append(BadSample(index, " ".join(str(error).split("\n"))))
                index = int(substitutes.integers(len(self.dataset)))
            else:
                if self.augment is not None:
                    own_rng = np.random.default_rng((self.seed, _AUGMENTATION, draw.number))
                    sample["lq"], sample["gt"] = self.augment(sample["lq"], sample["gt"], own_rng)
                return {**sample, BAD_SAMPLES: bad}
        return LoadingFailed(f"{_ATTEMPTS} images in a row could not be read, the last one: {bad[-1].message}")


def _rebuilt(plugins: Sequence[Plugin], state: bytes) -> SeededDataset:
    """A SeededDataset in another process."""
    load_again(plugins)
    dataset = SeededDataset.__new__(SeededDataset)
    dataset.__dict__.update(pickle.loads(state))
    return dataset


def collate(samples: Sequence[dict[str, Any] | LoadingFailed]) -> dict[str, Any] | LoadingFailed:
    """A batch: tensors stacked, texts listed, the reports of bad samples joined into one list."""
    loaded: list[dict[str, Any]] = []
    for sample in samples:
        if isinstance(sample, LoadingFailed):
            return sample
        loaded.append(sample)
    bad = [report for sample in loaded for report in sample[BAD_SAMPLES]]
    plain = [{key: value for key, value in sample.items() if key != BAD_SAMPLES} for sample in loaded]
    return {**default_collate(plain), BAD_SAMPLES: bad}
