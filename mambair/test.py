"""Test: `python mambair/test.py -opt FILE`, also under torchrun and srun, and without installation."""

import sys
from pathlib import Path

if not __package__:  # started as a file: import the checkout's package, not the modules beside this file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from mambair.commands.test import main

if __name__ == "__main__":
    sys.exit(main())
