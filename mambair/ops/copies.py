"""Copies of small tensors into other layouts and types, padded, turned or cast, up to six in one launch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton

from mambair.ops.launching import PreparedKernel
from mambair.ops.triton_copies import SEGMENTS, copy_kernel

_BLOCK = 1024


@dataclass(frozen=True)
class Copy:
    """A target (A, B, C), contiguous, whose element (a, b, c) is the source's at `steps` . (a, b, c).

    valid: (A, C) of the source; the target has zeros beyond.
    """

    shape: tuple[int, int, int]
    steps: tuple[int, int, int]
    valid: tuple[int, int]
    source: torch.dtype
    target: torch.dtype

    def numbers(self) -> tuple[int, ...]:
        """As the kernel takes them."""
        _, B, C = self.shape
        return (math.prod(self.shape), B, C, *self.valid, *self.steps)


def padded_matrix(
    rows: int, columns: int, to_rows: int, to_columns: int, source: torch.dtype, target: torch.dtype
) -> Copy:
    """(rows, columns) -> (to_rows, to_columns), zeros behind."""
    return Copy((to_rows, 1, to_columns), (columns, 0, 1), (rows, columns), source, target)


def cropped_matrix(rows: int, columns: int, from_columns: int, source: torch.dtype, target: torch.dtype) -> Copy:
    """The first `rows` and `columns` of a matrix with `from_columns`."""
    return Copy((rows, 1, columns), (from_columns, 0, 1), (rows, columns), source, target)


def transposed(rows: int, columns: int, source: torch.dtype, target: torch.dtype) -> Copy:
    """(rows, columns) -> (columns, rows)."""
    return Copy((columns, 1, rows), (1, 0, columns), (columns, rows), source, target)


class Copies:
    """Up to six copies as one launch: call it with the sources' addresses, then the targets'."""

    def __init__(self, copies: Sequence[Copy], device: torch.device) -> None:
        assert 1 <= len(copies) <= SEGMENTS
        self._more = SEGMENTS - len(copies)
        last = copies[-1]
        padding = [Copy((0, 1, 1), (0, 0, 0), (0, 0), last.source, last.target)] * self._more
        every = [*copies, *padding]
        blocks = max(triton.cdiv(math.prod(copy.shape), _BLOCK) for copy in copies)
        self.kernel = PreparedKernel(
            copy_kernel, (blocks, len(copies)), [*(c.source for c in every), *(c.target for c in every)],
            [number for copy in every for number in copy.numbers()], device, {"BLOCK": _BLOCK, "num_warps": 4},
        )  # fmt: skip

    def __call__(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        self.kernel(*sources, *([sources[-1]] * self._more), *targets, *([targets[-1]] * self._more))
