"""Requests to stop: Ctrl-C and SIGTERM (sent by SLURM before it takes a machine away) let a run save first."""

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from mambair.runtime.distributed import is_main_process

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""What a run that was asked to stop, and has saved, exits with: 128 + the signal's number, as shells count."""

ADVICE = {
    signal.SIGINT: "stopping after this iteration, with a checkpoint; press Ctrl-C again to end at once without one",
    signal.SIGTERM: "asked to stop: stopping after this iteration, with a checkpoint",
}


Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None
"""What Python calls for a signal."""


class StopRequest:
    """Notes SIGINT and SIGTERM while it is entered as a context; the second SIGINT ends the process at once.

    Enter it in the main thread, which alone can take signals.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """The first signal that came, None before."""
        self._previous: dict[signal.Signals, Handler] = {}
        self._speaks = is_main_process()

    def __enter__(self) -> "StopRequest":
        for number in EXIT_CODES:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def requested(self) -> bool:
        """Whether this process was asked to stop."""
        return self.signal is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = signal.Signals(number)
            if self._speaks:
                # Not through logging or rich: the handler may have interrupted them while they held their locks.
                os.write(2, f"\n{ADVICE[self.signal]}\n".encode())
        if number == signal.SIGINT:
            # The system's own handling from now on: it ends the process even inside a long computation.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
