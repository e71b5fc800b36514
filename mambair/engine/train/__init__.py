"""Training: from options to a finished run."""
