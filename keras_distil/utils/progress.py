"""Progress of long work: bars on terminals, plain lines elsewhere."""

import contextlib
import time
from collections.abc import Iterator

import rich.console
import rich.progress

# Seconds between plain lines, so that a log of hours stays readable.
_SECONDS_BETWEEN_LINES = 15.0


class Bar:
    """Shows how much of some work is done; created by `Progress.bar`."""

    def __init__(
        self,
        console: rich.console.Console,
        title: str,
        total: int | None,
        bars: rich.progress.Progress | None,
    ) -> None:
        self._console = console
        self._title = title
        self._total = total
        self._bars = bars
        self._task = (
            None if bars is None else bars.add_task(title, total=total, text="")
        )
        self._started = time.monotonic()
        self._last_line = self._started
        # Where this process began; an earlier one may have done a part.
        self._first: tuple[float, int] | None = None

    def update(self, done: int, text: str = "") -> None:
        """Shows that `done` units are finished.

        Args:
            done: units finished, out of the total.
            text: additional text, such as the latest losses.
        """
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, text=text)
            return
        now = time.monotonic()
        if self._first is None:
            self._first = now, done
        finished = self._total is not None and done >= self._total
        if now - self._last_line < _SECONDS_BETWEEN_LINES and not finished:
            return
        self._last_line = now
        of_total = "" if self._total is None else f"/{self._total:,}"
        self._console.print(
            f"{self._title}: {done:,}{of_total} {text}".rstrip()
            + f" ({duration(now - self._started)}{self._left(now, done)})",
            highlight=False,
            soft_wrap=True,
        )

    def _left(self, now: float, done: int) -> str:
        """Estimates the time left, from the speed since the first update."""
        if self._first is None or self._total is None:
            return ""
        began, before = self._first
        if done <= before or done >= self._total:
            return ""
        left = (now - began) / (done - before) * (self._total - done)
        return f", {duration(left)} left"

    def update_of(self, done: int, total: int) -> None:
        """Shows progress when the total becomes known only now."""
        if self._total != total:
            self._total = total
            if self._bars is not None and self._task is not None:
                self._bars.update(self._task, total=total)
        self.update(done)


def duration(seconds: float) -> str:
    """Formats seconds in the unit that people would use."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class Progress:
    """The output of commands: lines, warnings and bars.

    Args:
        quiet: whether to show only errors and results.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        # When the command began, in seconds of `time.monotonic`.
        self.started = time.monotonic()
        self.console = rich.console.Console(stderr=True, quiet=quiet)

    def say(self, text: str) -> None:
        """Prints one line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Prints one line as a warning."""
        self.say(f"Warning: {text}")

    @contextlib.contextmanager
    def bar(self, title: str, total: int | None = None) -> Iterator[Bar]:
        """Opens a bar.

        Args:
            title: what is being done.
            total: units of work, or None if it is not known.

        Yields:
            The `Bar`.
        """
        if not self.console.is_terminal or self.quiet:
            yield Bar(self.console, title, total, None)
            return
        columns = (
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(bar_width=20),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[text]}"),
        )
        with rich.progress.Progress(*columns, console=self.console) as bars:
            yield Bar(self.console, title, total, bars)
