"""Whose turn it is to write into the memory of a device's graphs."""

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Turns:
    """One thread, and one stream of a device, at a time uses graphs.

    Their inputs, results and workspaces are memory of their own that each replay writes: another thread must not write
    an input between a copy and its replay, and another stream's replay waits for the one before.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._lock = threading.Lock()
        self._done: torch.cuda.Event | None = None
        self._last: torch.cuda.Stream | None = None
        self._training: threading.Thread | None = None
        self._waits_for_autograd = False
        self.workspaces: dict[bool, torch.cuda.CUDAGraph] = {}

    @functools.cached_property
    def stream(self) -> torch.cuda.Stream:
        """What graphs are captured on. Its workspaces of cuBLAS are no other stream's."""
        return torch.cuda.Stream(self.device)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Within this block graphs may be captured and replayed on the current stream."""
        self._acquire()
        try:
            with torch.cuda.device(self.device):
                stream = torch.cuda.current_stream()
                if self._done is None:
                    self._done = torch.cuda.Event()
                elif self._last != stream:
                    stream.wait_event(self._done)
                try:
                    yield
                finally:
                    self._done.record(stream)
                    self._last = stream
        finally:
            self._lock.release()

    def _acquire(self) -> None:
        if not is_in_backward():
            self._lock.acquire()
            return
        # Autograd has one thread for a device: a backward pass that waits here keeps that of a capture from running.
        while not self._lock.acquire(timeout=0.05):
            if self._waits_for_autograd:
                raise RuntimeError(
                    "a backward pass met the capture of another thread's training step; set replays_steps = False in "
                    "networks that several threads train"
                )

    def trains_here(self, about_to_capture: bool) -> bool:
        """Whether this thread is the one whose steps are graphs: the first that comes to capture one."""
        if about_to_capture and (self._training is None or not self._training.is_alive()):
            self._training = threading.current_thread()
        return self._training is threading.current_thread()

    @contextmanager
    def waiting_for_autograd(self) -> Iterator[None]:
        """Within this block whoever has the turn needs autograd's thread."""
        self._waits_for_autograd = True
        try:
            yield
        finally:
            self._waits_for_autograd = False


def is_in_backward() -> bool:
    """Whether autograd called what runs here."""
    return torch._C._current_graph_task_id() != -1


@functools.cache
def turns_of(device: torch.device) -> Turns:
    """Those of a device, for all networks."""
    return Turns(device)
