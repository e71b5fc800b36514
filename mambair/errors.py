"""The one exception a user is meant to see."""


class UserError(ValueError):
    """A mistake in what the user gave: an option, a file, a weight file, a missing package.

    The commands print its message as a single line, without a traceback, and exit with code 2. The message
    names the file and key at fault and says what to do; anything that is our own fault is left to raise
    as what it is.
    """
