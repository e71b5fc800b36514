"""`mambair data`: preparing and checking data sets. `main(argv)` is the command."""

from mambair.commands.data.command import main

__all__ = ["main"]
