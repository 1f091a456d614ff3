"""Everything a person sees: results on stdout, all else (choices, progress, warnings) on stderr.

With `--json` stdout carries one JSON object and nothing else, so `show` falls silent there. Progress is a live bar on a
terminal and, where nobody watches (a pipe, CI), a plain line every ten seconds; work under two seconds shows nothing.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.segment import Segment
from rich.text import Text

from pipeline.terminal.escape import one_line, shown

QUIET_SECONDS = 2.0
PLAIN_LINE_SECONDS = 10.0
_PART = 1 << 13
_OLDER = " a digest"
"""In what packages say of files that were made before there was one: the first such line stands for all."""
READER_GONE = 141
"""Exit status when whoever read the output is gone (`| head -1`): 128 + SIGPIPE, what a shell shows for `cat` then.

The signal itself stays ignored, or a worker's broken pipe would end the process without a word.
"""


def leave_quietly() -> NoReturn:
    """Ends the process as SIGPIPE would: nobody reads any more, so nothing is said, not even while it shuts down."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    raise SystemExit(READER_GONE)


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Prints inside it, and nothing else that could break a pipe."""
    try:
        yield
    except BrokenPipeError:
        leave_quietly()


class _Stream(RichConsole):
    """A stream whose reader may leave, and on which what comes from data is shown, never obeyed."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Every piece of text on its way out; what rich itself tells the terminal is marked as control."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(shown(segment.text), segment.style)

    def render_str(self, text: str, **how: Any) -> Text:
        """Escaped before its width is measured."""
        return super().render_str(shown(text), **how)

    def on_broken_pipe(self) -> None:
        """Called by rich when a write fails because nobody reads."""
        self.quiet = True
        leave_quietly()


class _TimeLeft(ProgressColumn):
    """Time left of a bar, in the words of `duration`."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Nothing until there is a rate."""
        return Text("" if task.time_remaining is None else f"{duration(task.time_remaining)} left")


class ProgressBar:
    """One piece of work with a known or unknown amount; `update` may be called as often as one likes."""

    def __init__(self, console: RichConsole, title: str) -> None:
        self._console = console
        self._title = title
        self._began = time.monotonic()
        self._printed = self._began
        self._live: Progress | None = None
        self._task: TaskID | None = None

    def update(self, done: float, total: float | None, note: str = "") -> None:
        """`done` of `total` units are finished; `note` is shown beside the bar."""
        now = time.monotonic()
        if now - self._began < QUIET_SECONDS:
            return
        if self._console.is_terminal:
            self._draw(done, total, note)
        elif now - self._printed >= PLAIN_LINE_SECONDS:
            self._printed = now
            self._console.print(self._plain_line(done, total, note, now), markup=False, highlight=False)

    def share(self, done: float, note: str) -> None:
        """A share of the whole, 0 to 1, is finished."""
        self.update(done, 1.0, note)

    def close(self) -> None:
        """Takes the bar off the screen."""
        if self._live is not None:
            self._live.stop()

    def _draw(self, done: float, total: float | None, note: str) -> None:
        if self._live is None:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[note]}"),
                _TimeLeft(),
            )
            self._live = Progress(*columns, console=self._console, transient=True)
            self._live.start()
            self._task = self._live.add_task(self._title, total=total, note=note)
        assert self._task is not None
        self._live.update(self._task, completed=done, total=total, note=note)

    def _plain_line(self, done: float, total: float | None, note: str, now: float) -> str:
        if not total:
            return f"{self._title}: {done:,.0f} {note}".rstrip()
        left = (now - self._began) * (total - done) / done if done else 0.0
        remaining = f", about {duration(left)} left" if done else ""
        return f"{self._title}: {done / total:.0%} {note}{remaining}"


class _Said(logging.Handler):
    """Says what is logged, each line once, and of lines that share a reason (`once`, or a pattern) the first."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console
        self._known: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging."""
        reason = str(getattr(record, "once", record.msg))
        reason = _OLDER if _OLDER in reason else reason
        if reason not in self._known:
            self._known.add(reason)
            self._console.say(record.getMessage())


class Console:
    """The two streams of a command: results on stdout, everything else on stderr."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal without ± or an arrow shows a question mark
        self._out = _Stream(highlight=False, emoji=False)
        self._err = _Stream(stderr=True, highlight=False, emoji=False)

    @property
    def width(self) -> int:
        """Columns of the terminal; 80 where there is none."""
        return self._out.width

    def show(self, renderable: RenderableType = "") -> None:
        """A result for a person; nothing under `--json`. Strings are shown as they are, without markup."""
        if not self.as_json:
            self._out.print(renderable, markup=False, soft_wrap=isinstance(renderable, str))

    def emit(self, result: Mapping[str, Any]) -> None:
        """The one JSON object of `--json`."""
        self.write(json.dumps(result, allow_nan=False) + "\n")

    def write(self, text: str) -> None:
        """Text for another program, as it is; on a terminal with control characters shown.

        In parts: of a text longer than a pipe holds, Python writes the beginning and does not say that nobody reads on.
        """
        text = shown(text) if sys.stdout.isatty() else text
        with reader_may_leave():
            for start in range(0, len(text), _PART):
                sys.stdout.write(text[start : start + _PART])
            sys.stdout.flush()

    def say(self, line: str) -> None:
        """A choice made, a warning, what goes on: one line on stderr."""
        self._err.print(line, markup=False, soft_wrap=True)

    def error(self, problem: str, remedy: str) -> None:
        """What is wrong in one line, what to do in the next."""
        self._err.print(f"error: {one_line(problem)}", markup=False, soft_wrap=True, style="red")
        self._err.print(f"   do: {one_line(remedy)}", markup=False, soft_wrap=True)

    @contextmanager
    def saying_what_is_logged(self) -> Iterator[None]:
        """Inside it, what the stages below log is said here, each line once."""
        handler = _Said(self)
        loggers = [logging.getLogger(package) for package in ("pipeline", "heads", "cache", "data")]
        for logger in loggers:
            logger.addHandler(handler)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeHandler(handler)

    @contextmanager
    def progress(self, title: str) -> Iterator[ProgressBar]:
        """A progress bar that leaves the screen when the block ends."""
        bar = ProgressBar(self._err, title)
        try:
            yield bar
        finally:
            bar.close()


_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))


def duration(seconds: float) -> str:
    """A length of time in its two largest units: `0.4 s`, `18 s`, `2 min 5 s`, `6 h 23 min`, `2 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    smallest = 1 if seconds < 3_600 else 60 if seconds < 86_400 else 3_600
    whole = round(seconds / smallest) * smallest
    for size, large, unit, small in _UNITS:
        if whole >= size:
            rest = whole % size // unit
            return f"{whole // size:,} {large}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"
