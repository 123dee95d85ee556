"""Progress on stderr: moving bars on a terminal, and occasional lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from submillion.cli.console import open_console, print_note
from submillion.cli.tables import tabulate_plan
from submillion.progress import Progress

if TYPE_CHECKING:
    from submillion.budget.plan import Plan

LINE_INTERVAL_S = 10.0


class BarProgress:
    """One bar per stage, for terminals; a finished stage keeps its bar."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._task = TaskID(0)

    def start(self, stage: str, total: int | None = None, done: int = 0) -> None:
        """Show a bar, which only pulses and counts without a total."""
        self.finish()
        console = open_console(stderr=True)
        columns = [
            TextColumn("{task.description:<12}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn() if total is not None else TextColumn("{task.completed:,}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
        ]
        self._bars = Bars(*columns, console=console, refresh_per_second=5)
        self._task = self._bars.add_task(stage, total=total, completed=done, figures="")
        self._bars.start()

    def advance(self, done: int, **figures: float) -> None:
        """Move the bar to `done`."""
        if self._bars is not None:
            self._bars.update(self._task, completed=done, figures=format_figures(figures))

    def note(self, message: str) -> None:
        """Print above the bar."""
        if self._bars is not None:
            self._bars.console.print(message, soft_wrap=True)
        else:
            print_note(message)

    def on_plan(self, plan: Plan) -> None:
        """Print the plan below the last bar."""
        self.finish()
        _print_plan(plan)

    def finish(self) -> None:
        """Keep the bar as it is."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


class LineProgress:
    """Plain lines for files and pipes: one at the start and end of a stage, and at most one every ten seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage = ""
        self._total: int | None = None
        self._done = self._done_before = 0
        self._figures: dict[str, float] = {}
        self._started_s = 0.0
        self._shown_s = 0.0

    def start(self, stage: str, total: int | None = None, done: int = 0) -> None:
        """Print the stage's name and size."""
        self.finish()
        self._stage, self._total, self._done, self._figures = stage, total, done, {}
        self._done_before = done
        self._started_s = self._shown_s = self._clock()
        print_note(f"{stage}: started" + (f", {total:,} to do" if total is not None else ""))

    def advance(self, done: int, **figures: float) -> None:
        """Print a line if ten seconds have passed since the last one."""
        self._done, self._figures = done, figures
        now = self._clock()
        if now - self._shown_s < LINE_INTERVAL_S:
            return
        self._shown_s = now
        elapsed = now - self._started_s
        parts = [f"{done:,}"]
        if self._total:
            parts[0] += f" of {self._total:,} ({done / self._total:.0%})"
            if self._done_before < done < self._total:
                rest = elapsed * (self._total - done) / (done - self._done_before)
                parts.append(f"{format_duration(rest)} left")
        if figures:
            parts.append(format_figures(figures))
        print_note(f"{self._stage}: {', '.join(parts)}")

    def note(self, message: str) -> None:
        """Print the note on its own line."""
        print_note(message)

    def on_plan(self, plan: Plan) -> None:
        """Print the plan."""
        _print_plan(plan)

    def finish(self) -> None:
        """Print how much was done and how long it took."""
        if self._stage:
            count = f"{self._done:,} " if self._done else ""
            figures = f", {format_figures(self._figures)}" if self._figures else ""
            elapsed = format_duration(self._clock() - self._started_s)
            print_note(f"{self._stage}: {count}done in {elapsed}{figures}")
            self._stage = ""


def _print_plan(plan: Plan) -> None:
    for block in tabulate_plan(plan):
        print_note(block)


def open_progress() -> Progress:
    """Return bars if stderr is a terminal, otherwise lines."""
    return BarProgress() if sys.stderr.isatty() else LineProgress()


def format_figures(figures: dict[str, float]) -> str:
    """Return figures as ``loss 0.31, rows/s 102``, with four significant digits each."""
    return ", ".join(f"{name.replace('_per_s', '/s').replace('_', ' ')} {value:.4g}" for name, value in figures.items())


def format_duration(seconds: float) -> str:
    """Return a duration as ``3.2 s``, ``4 min 05 s`` or ``1 h 02 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
