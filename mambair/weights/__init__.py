"""Weight files: reading and writing them, telling which network they hold, and where they come from."""
