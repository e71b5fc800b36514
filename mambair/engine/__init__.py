"""Training and testing: the loop, its steps, checkpoints, validation and reports."""
