"""`mambair data`: preparing and checking data sets. `main(argv)` is the command."""

from mambair.data_tools.command import main

__all__ = ["main"]
