"""The random numbers that belong to a micro-batch.

The number of its first sample in the order of the run, and not the process or the position in the loop, decides them: a
run gives the same ones after resuming, and on any number of processes.
"""

import numpy as np
import torch

# What a stream of random numbers is for; the streams of one micro-batch differ in this number.
PREPARATION = 0
FIRST_PHASE = 1


def preparation_rng(seed: int, first_draw: int) -> np.random.Generator:
    """The generator that `TrainableModel.prepare` draws from."""
    return np.random.default_rng(entropy(seed, first_draw, PREPARATION))


def seed_phase(seed: int, first_draw: int, phase: int, device: torch.device) -> None:
    """Seed torch's global generators, which layers such as DropPath draw from, for a phase of the iteration."""
    state = entropy(seed, first_draw, FIRST_PHASE + phase).generate_state(1, np.uint64)
    # Generators take signed 64-bit seeds. torch.manual_seed is for the beginnings of programs: it takes a millisecond
    # where a GPU is not in use.
    number = int(state[0]) >> 1
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)


def entropy(seed: int, first_draw: int, purpose: int) -> np.random.SeedSequence:
    """What the streams are made of."""
    return np.random.SeedSequence([seed, first_draw, purpose])
