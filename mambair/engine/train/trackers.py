"""Where curves and pictures of a run go besides the log: TensorBoard and Weights & Biases."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mambair.errors import UserError

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """Takes numbers and pictures under names such as losses/l_pix."""

    def scalars(self, values: Mapping[str, float], iteration: int) -> None: ...

    def image(self, name: str, image: np.ndarray, iteration: int) -> None:
        """An uint8 image (H, W, C)."""
        ...

    def close(self) -> None: ...


class TensorBoardTracker:
    """Event files for `tensorboard --logdir`. Where they cannot be written any more, the run goes on without them."""

    def __init__(self, folder: Path, start_iter: int) -> None:
        # Imported here: it takes a second, which only runs that want it should pay.
        from torch.utils.tensorboard import SummaryWriter

        # What a killed run wrote after its last checkpoint is written again: without purging, curves would fold back.
        self._writer = SummaryWriter(str(folder), purge_step=start_iter + 1 if start_iter else None)
        self._failed = False

    def scalars(self, values: Mapping[str, float], iteration: int) -> None:
        with self._unless_failed():
            for name, value in values.items():
                self._writer.add_scalar(name, value, iteration)

    def image(self, name: str, image: np.ndarray, iteration: int) -> None:
        with self._unless_failed():
            self._writer.add_image(name, image, iteration, dataformats="HWC")

    def close(self) -> None:
        with self._unless_failed():
            self._writer.close()

    @contextmanager
    def _unless_failed(self) -> Iterator[None]:
        """Its thread that writes ends at the first failure, and what is called after that raises the same again."""
        try:
            yield
        except OSError as error:
            if not self._failed:
                logger.error("TensorBoard's files could not be written (%s); curves end here", error.strerror or error)
            self._failed = True


class WandbTracker:
    """A run on Weights & Biases."""

    def __init__(
        self, project: str, name: str, resume_id: str | None, folder: Path, options: Mapping[str, Any]
    ) -> None:
        import wandb

        self._make_image = wandb.Image
        self._run = wandb.init(
            project=project, name=name, id=resume_id, resume="allow", dir=str(folder), config=dict(options)
        )

    def scalars(self, values: Mapping[str, float], iteration: int) -> None:
        self._run.log(dict(values), step=iteration)

    def image(self, name: str, image: np.ndarray, iteration: int) -> None:
        self._run.log({name: self._make_image(image)}, step=iteration)

    def close(self) -> None:
        self._run.finish()


def check_wandb(project: str | None) -> None:
    """Raise UserError if Weights & Biases is asked for but not installed."""
    if project is not None and find_spec("wandb") is None:
        raise UserError("logger.wandb: wandb is not installed; install it with: pip install 'mambair[wandb]'")
