"""The GPU section: scans alone, training steps and inference, within a time limit."""

from collections.abc import Iterator

import torch

from benchmarks.gpu_networks import time_inference, time_plain, time_training, time_v2
from benchmarks.gpu_scans import time_scans
from benchmarks.gpu_starts import time_starts
from benchmarks.tables import Settings, Table
from benchmarks.timing import Budget
from mambair.errors import UserError

PARTS = {
    "plain": time_plain,
    "start": time_starts,
    "scan": time_scans,
    "train": time_training,
    "infer": time_inference,
    "v2": time_v2,
}


def run_gpu(settings: Settings) -> Iterator[Table]:
    """The tables of the parts that the settings name. Raises UserError without a CUDA GPU."""
    if not torch.cuda.is_available():
        raise UserError("--gpu: no CUDA GPU is usable; run nvidia-smi to see whether the driver finds one")
    budget = Budget(settings.time_limit)
    for name, time_part in PARTS.items():
        if name in settings.only:
            yield from time_part(settings, budget)
