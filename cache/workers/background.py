"""Two threads beside the one that computes: one prefetches items, one writes results.

Tokenizing, packing and writing release Python's lock in their inner loops, so threads suffice and nothing is pickled.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")
_POLL_SECONDS = 0.1


class _End:
    """Marks the end of a queue, and carries the exception that ended it."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Prefetcher(Generic[T]):
    """An iterator over `items`, which a thread reads up to `depth` in advance, beginning at once.

    An exception of the items is raised by `next`. Closing or deleting it ends the thread at its next item.
    """

    def __init__(self, items: Iterable[T], depth: int) -> None:
        self._queue: queue.Queue[T | _End] = queue.Queue(depth)
        self._stopped = threading.Event()
        work = (items, self._queue, self._stopped)  # not self: a thread that held it would keep it alive
        threading.Thread(target=_produce, args=work, name="prefetcher", daemon=True).start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if self._stopped.is_set():
            raise StopIteration
        item = self._queue.get()
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
        self.close()


def _put(item: Any, waiting: queue.Queue[Any], stopped: threading.Event) -> None:
    """Put an item into a queue, waiting while it is full, unless nobody wants it any more."""
    while not stopped.is_set():
        try:
            return waiting.put(item, timeout=_POLL_SECONDS)
        except queue.Full:
            continue


def _produce(items: Iterable[Any], waiting: queue.Queue[Any], stopped: threading.Event) -> None:
    put = partial(_put, waiting=waiting, stopped=stopped)
    try:
        for item in items:
            put(item)
            if stopped.is_set():
                return
        put(_End())
    except BaseException as error:  # handed to the thread that consumes
        put(_End(error))


class BackgroundWriter(Generic[T]):
    """A `with` block whose `put` passes items to `consume`, which runs in a thread; at most `depth` items wait.

    `consume` gets an iterator. Leaving the block waits until it has taken everything, after an exception too: what was
    computed is written. An exception of `consume` is raised by the next `put` or by leaving the block.
    """

    def __init__(self, consume: Callable[[Iterator[T]], None], depth: int) -> None:
        self._consume = consume
        self._queue: queue.Queue[T | _End] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="background-writer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def put(self, item: T) -> None:
        """Pass an item on, waiting while `depth` others wait; may be called from several threads."""
        if self._error is not None:
            raise self._error
        self._queue.put(item)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Wait for the thread; raise what it raised unless another exception is on its way."""
        self._queue.put(_End())
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def _taken(self) -> Iterator[T]:
        while not isinstance(item := self._queue.get(), _End):
            yield item
        self._ended = True

    def _work(self) -> None:
        items = self._taken()
        try:
            self._consume(items)
        except BaseException as error:  # raised where the items come from
            self._error = error
            if not self._ended:  # never leave `put` waiting for a dead thread
                deque(self._taken(), maxlen=0)
