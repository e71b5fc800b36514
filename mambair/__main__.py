"""`python -m mambair COMMAND ...`: the console script without an installation."""

import sys

from mambair.cli import main

if __name__ == "__main__":
    sys.exit(main())
