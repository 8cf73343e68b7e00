"""What a training shows while it runs: one line that moves on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from medsae_plugin.text import clock, printable

_ON_A_TERMINAL, _ELSEWHERE, _FIRST = 0.5, 30.0, 3.0  # seconds between two lines; before the first elsewhere
_MOST_SAES = 12  # that have a line of their own below the first


class Watch:
    """Says how far a training is: rows a second and time left of this process, and figures of each SAE.

    Attributes:
        wanted: whether the step that comes is to be shown, so that its figures should be computed.
    """

    def __init__(self, steps: int, rows_a_step: int, shown: bool) -> None:
        self.steps, self.rows = steps, rows_a_step
        self.wanted = False
        self._display = _display() if shown else None
        self._start: tuple[int, float] | None = None  # steps and time at the first look, when all is warm
        self._next = 0.0

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._display is not None:
            self._display.stay(text)

    def look(self, step: int, figures: Mapping[str, Mapping[str, float]]) -> None:
        """Between two steps: show the figures if they were wanted, and decide whether the next step's are."""
        if self._display is None:
            return
        now = time.monotonic()
        if self._start is None:
            self._start, self._next = (step, now), now + min(self._display.seconds, _FIRST)
        if self.wanted and figures:
            self._display.show([self._head(step, now), *(_of_sae(name, f) for name, f in figures.items())])
            self._next = time.monotonic() + self._display.seconds
        self.wanted = now >= self._next or step + 1 >= self.steps

    def close(self) -> None:
        """The last line stays."""
        if self._display is not None:
            self._display.close()

    def _head(self, step: int, now: float) -> str:
        assert self._start is not None
        done, seconds = step - self._start[0], now - self._start[1]
        rate = done / seconds if done and seconds else 0.0
        left = clock((self.steps - step) / rate) if rate else "?"
        speed = f"{rate * self.rows:,.0f} rows/s" if rate else "? rows/s"
        return f"training: step {step:,} of {self.steps:,} ({step / self.steps:.0%}) [{clock(seconds)}<{left}] {speed}"


def _of_sae(name: str, figures: Mapping[str, float]) -> str:
    told = figures["explained_variance"], figures["l0"], figures["dead"], figures["loss"]
    return "{}: explained variance {:.3f}  L0 {:.1f}  dead {:.1%}  loss {:.4g}".format(name, *told)


def _display() -> _Lines | _CarriageReturn | _Rich:
    if not sys.stderr.isatty():
        return _Lines()
    with suppress(ImportError):
        return _Rich()
    return _CarriageReturn()


class _Lines:
    """For logs: a line every so often."""

    seconds = _ELSEWHERE

    def stay(self, text: str) -> None:
        sys.stderr.write(f"{printable(text)}\n")

    def show(self, lines: list[str]) -> None:
        self.stay("  ".join(lines))

    def close(self) -> None:
        pass


class _CarriageReturn:
    """One line that is written over; of several SAEs one after the other."""

    seconds = _ON_A_TERMINAL

    def __init__(self) -> None:
        self._turn, self._width = 0, 0

    def stay(self, text: str) -> None:
        self._write(printable(text))
        self.close()

    def show(self, lines: list[str]) -> None:
        head, *saes = lines
        self._write(f"{head}  {saes[self._turn % len(saes)]}"[: shutil.get_terminal_size().columns - 1])
        self._turn += 1

    def close(self) -> None:
        if self._width:
            sys.stderr.write("\n")
        self._width = 0

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r{text.ljust(self._width)}")
        sys.stderr.flush()
        self._width = len(text)


class _Rich:
    """A line that moves, and below it one an SAE where there are several."""

    seconds = _ON_A_TERMINAL

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False)
        self._text: Callable[..., Any] = Text

    def stay(self, text: str) -> None:
        self._console.print(self._text(text))

    def show(self, lines: list[str]) -> None:
        head, *saes = lines
        if len(saes) == 1:
            text = f"{head}  {saes[0]}"
        else:
            more = [f"and {len(saes) - _MOST_SAES} more"] if len(saes) > _MOST_SAES else []
            text = "\n".join([head, *(f"  {sae}" for sae in saes[:_MOST_SAES] + more)])
        self._live.start()
        self._live.update(self._text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    def close(self) -> None:
        self._live.stop()
