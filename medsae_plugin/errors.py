"""The one exception that the package raises for what a user can mend."""


class MedSAEError(ValueError):
    """Bad input: the message says what is wrong, where, and what to do. The command line prints it, no traceback."""
