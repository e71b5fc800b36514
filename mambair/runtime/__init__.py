"""Processes, devices, seeds, logs and folders of a run."""
