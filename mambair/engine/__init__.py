"""Runs: `train` is the loop and its steps, `evaluate` tests and their tables, `checkpoints` what a run goes on from."""
