"""The one exception that the package raises for what a user can mend, and what others say in a line."""

from __future__ import annotations


class MedSAEError(ValueError):
    """Bad input: the message says what is wrong, where, and what to do. The command line prints it, no traceback."""


def reason_of(error: BaseException) -> str:
    """What an exception says, in a line: of an `OSError` the system's words, else its first line, else its class."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
