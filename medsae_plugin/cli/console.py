"""The console: output that cannot break a command, and errors in a line."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from contextlib import suppress
from typing import TextIO

from medsae_plugin.errors import MedSAEError, reason_of


class _Stream(io.TextIOWrapper):
    """A standard stream in place of `replaced`, which it keeps: gone, that would close the file below both."""

    def __init__(self, replaced: io.TextIOWrapper, errors: str, *, line_buffering: bool) -> None:
        replaced.flush()
        super().__init__(replaced.buffer, replaced.encoding, errors, line_buffering=line_buffering)
        self._replaced = replaced


class _Output(_Stream):
    """Standard output, whose failures are told from those of files."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise self._given_up(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise self._given_up(error) from error

    def _given_up(self, error: OSError) -> MedSAEError:
        with suppress(OSError):  # to nothing from here on, or leaving would say it again
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
        return MedSAEError(f"standard output cannot be written: {reason_of(error)}; files are")


class _Unbreakable(_Stream):
    """Standard error, for bars, warnings and messages: a closed pipe or a full disk there stops no computation."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def prepare_console() -> None:
    """Print with replacements what the console's encoding lacks; go on where it is closed, or stderr fails."""
    # A stream that is closed is None. Opened on nothing, it keeps its number from the next file that is opened.
    sys.stdout = sys.stdout or _nothing()
    sys.stderr = sys.stderr or _nothing()
    if type(sys.stdout) is io.TextIOWrapper:
        sys.stdout = _Output(sys.stdout, "replace", line_buffering=sys.stdout.line_buffering)
    if type(sys.stderr) is io.TextIOWrapper:
        sys.stderr = _Unbreakable(sys.stderr, "backslashreplace", line_buffering=True)


def _nothing() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123


def quieten() -> None:
    """No bars, of ours or of any library, from here on: they read the environment when they are imported."""
    os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def say(error: BaseException, debug: bool) -> None:
    """Print an error in a line, with `debug` after where it comes from."""
    if debug:
        traceback.print_exception(error)
    sys.stderr.write(f"medsae: {in_words(error)}\n")


def in_words(error: BaseException) -> str:
    """What went wrong, for people."""
    from medsae_plugin.fetch import broken_settings, network_reason

    if isinstance(error, MedSAEError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _is_of_torch_memory(error):
        return f"memory ran out ({reason_of(error)}); free some, or ask for less at once"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{reason_of(error)}; allow more (ulimit -n), or give fewer workers"
    if reason := network_reason(error):
        return f"the network failed ({reason}); run it again"
    if isinstance(error, OSError):
        return reason_of(error)
    if words := broken_settings():
        return words
    return (
        f"{type(error).__name__}: {reason_of(error)}. This was not foreseen: "
        "the same command with --debug shows where it comes from"
    )


def _is_of_torch_memory(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
