"""Restore photos and videos: `python mambair/restore.py PATH... -o OUT --weights FILE`, also without installation."""

import sys
from pathlib import Path

if not __package__:  # started as a file: import the checkout's package, not the modules beside this file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from mambair.commands.restore.command import main

if __name__ == "__main__":
    sys.exit(main())
