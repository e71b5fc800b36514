"""What the numba backends of the operators share: vectors, the recurrence over a chunk, and worker threads."""
