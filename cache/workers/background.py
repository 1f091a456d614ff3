"""Work ahead of who waits for it, and behind who need not: an iterator run in a thread, a sink run in another.

Tokenizing, planning and writing let go of Python's lock in their inner loops, so threads suffice and nothing is
pickled.
"""

from __future__ import annotations

import queue
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

T = TypeVar("T")
_POLL_SECONDS = 0.1


class _End:
    """Marks the end of a queue, and carries the exception that ended it."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Prefetcher(Generic[T]):
    """An iterator over `items`, which a thread computes up to `depth` in advance, from now on.

    The items' exception comes out of `next`. Closing it, or letting go of it, ends the thread at its next item.
    """

    def __init__(self, items: Iterable[T], depth: int) -> None:
        """Start the thread."""
        self._line: queue.Queue[T | _End] = queue.Queue(depth)
        self._stopped = threading.Event()
        work = (items, self._line, self._stopped)  # not self: a thread that held it would keep it alive
        threading.Thread(target=_produce, args=work, name="ahead", daemon=True).start()

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> T:
        """Return the next item, waiting for it."""
        if self._stopped.is_set():
            raise StopIteration
        item = self._line.get()
        if not isinstance(item, _End):
            return item
        self.close()
        if item.error is not None:
            raise item.error
        raise StopIteration

    def close(self) -> None:
        """Let the thread end."""
        self._stopped.set()

    def __del__(self) -> None:
        """Close."""
        self.close()


def put_until_stopped(item: Any, line: queue.Queue[Any], stopped: threading.Event) -> None:
    """Put an item into a queue, waiting while it is full, unless nobody wants it any more."""
    while not stopped.is_set():
        try:
            return line.put(item, timeout=_POLL_SECONDS)
        except queue.Full:
            continue


def _produce(items: Iterable[Any], line: queue.Queue[Any], stopped: threading.Event) -> None:
    put = partial(put_until_stopped, line=line, stopped=stopped)
    try:
        for item in items:
            put(item)
            if stopped.is_set():
                return
        put(_End())
    except BaseException as error:  # handed to the thread that consumes
        put(_End(error))


class BackgroundWriter(Generic[T]):
    """A `with` block whose `put` hands items to `consume`, which a thread runs; at most `depth` items wait.

    `consume` gets an iterator. Leaving the block waits until it has taken everything, after an exception too: what was
    computed is written. Its own exception comes out of the next `put` or of leaving.
    """

    def __init__(self, consume: Callable[[Iterator[T]], None], depth: int) -> None:
        """Start nothing yet."""
        self._consume = consume
        self._line: queue.Queue[T | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="behind", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def put(self, item: T) -> None:
        """Hand over an item, waiting while `depth` others wait."""
        if self._error is not None:
            raise self._error
        self._line.put(item)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the thread; raise what it raised unless another exception is on its way."""
        self._line.put(None)
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def _work(self) -> None:
        items = iter(self._line.get, None)
        try:
            self._consume(items)
        except BaseException as error:  # raised where the items come from
            self._error = error
            for _ in items:  # never leave `put` waiting for a dead thread; if the end was taken, there is none to take
                continue
