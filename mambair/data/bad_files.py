"""Training files that turn out to be unusable during a run: named and counted in the log, and too many end it."""

import logging
from collections.abc import Sequence

from mambair.data.seeded_dataset import BadSample
from mambair.errors import UserError
from mambair.runtime.distributed import all_gather_object

logger = logging.getLogger(__name__)


class BadFiles:
    """Counts every file once, over all processes, against `limit`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._indices: set[int] = set()
        self._unshared: list[BadSample] = []

    def __len__(self) -> int:
        return len(self._indices)

    def add(self, reports: Sequence[BadSample]) -> None:
        """Take in what this process met. Raises UserError beyond the limit."""
        new = [report for report in reports if report.index not in self._indices]
        self._unshared.extend(new)
        self._note(new)

    def share(self) -> None:
        """Take in what the other processes met since the last call, which all of them must make.

        Only the first process writes a log: it learns here of the others' files. Raises UserError, on all of them,
        when they are too many together.
        """
        for reports in all_gather_object(self._unshared):
            self._note(reports)
        self._unshared = []

    def _note(self, reports: Sequence[BadSample]) -> None:
        for index, message in reports:
            if index in self._indices:
                continue
            self._indices.add(index)
            logger.warning("%s (other images take its place; bad files so far: %d)", message, len(self))
            if len(self) > self.limit:
                raise UserError(
                    f"datasets.train: {len(self)} files could not be used, the last one: {message}; "
                    "repair the data, or raise max_bad_samples"
                )
