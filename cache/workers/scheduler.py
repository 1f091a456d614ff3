"""Hands out work: a worker that asks gets the next item, and what a failed worker held goes to the others.

One scheduler for embedding, for fits and for the points of a sweep. An item is done when its worker acknowledges it,
which it does once the results are on the disk. A worker that is killed, or whose device fails, costs what it held: the
others do that again, and what may have been the reason comes last, when most is stored. An item that cost
`MOST_FAILURES` workers ends the job by name. An error of the work itself (`cache.devices.lost_device` tells) ends it at
once. No worker is dismissed before the last item is acknowledged, since until then there may be one to do again.

A new process on a device that failed was left out: a GPU that failed once fails again, and memory that ran out needs
fewer processes. A device that hangs without an error is waited for.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cache.errors import CacheError
from cache.workers.process_pool import Finished, JobFailed, ProcessFailed, ProcessPool, Request

T = TypeVar("T")
MOST_FAILURES = 3
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Acknowledged:
    """The results of an item are on the disk: the item's number, and what its worker says about it."""

    number: int
    result: Any = None


@dataclass(frozen=True)
class _Task(Generic[T]):
    """An item, and how many workers failed while they had it in hand."""

    item: T
    failures: int = 0


class Scheduler(Generic[T]):
    """Which items wait, which are held by which worker, and what was noticed (`notes`).

    What is particular to a kind of work is in the methods that a subclass replaces: `received`, `acknowledged`,
    `finished`, `remaining` and `amount`.
    """

    def __init__(
        self,
        items: Iterable[T],
        name: Callable[[Sequence[T]], str],
        error: Callable[[str, str], Exception] = CacheError,
    ) -> None:
        """Begin with every item waiting.

        :param items: read one by one, as workers ask for them.
        :param name: what to call some items in a message.
        :param error: makes the exception of a problem and its remedy.
        """
        self.notes: list[str] = []
        self._name, self._error = name, error
        self._items, self._all_read = iter(items), False
        self._retries: deque[_Task[T]] = deque()
        self._suspects: deque[_Task[T]] = deque()
        self._held: dict[int, dict[int, _Task[T]]] = {}
        self._numbers = itertools.count()
        self._alive: set[int] = set()
        self._idle: deque[int] = deque()
        self._spare: deque[tuple[str, tuple[Any, ...]]] = deque()
        self._dismissed = False

    @property
    def in_progress(self) -> list[T]:
        """The items that workers hold."""
        return [task.item for tasks in self._held.values() for task in tasks.values()]

    def held_by(self, worker: int) -> list[T]:
        """Return the items that a worker holds."""
        return [task.item for task in self._held.get(worker, {}).values()]

    def received(self, worker: int, message: Any) -> None:
        """Take in what a worker says besides asking and acknowledging; None: nothing was said for a while."""

    def acknowledged(self, worker: int, item: T, result: Any) -> None:
        """Note that an item is done."""

    def finished(self, result: Any) -> None:
        """Take in what a worker returned that was dismissed."""

    def remaining(self, worker: int, item: T) -> Iterable[tuple[T, bool]]:
        """Yield what is left to do of an item that a failed worker held, each part with whether it is a suspect."""
        yield item, True

    def amount(self, items: Sequence[T]) -> str:
        """Say how much work some items are."""
        return self._name(items)

    def run(
        self,
        work: Callable[..., Any],
        devices: Sequence[str],
        arguments: Callable[[str, int], tuple[Any, ...]],
    ) -> None:
        """Run `work(channel, *arguments(device, processes))` in a process per device until every item is done.

        No more processes are started than there are items; the devices left over replace those that fail.

        :raises Exception: `error` of what a process raises; of an item that cost several; of every process failing.
        """
        first = list(itertools.islice(self._items, len(devices)))
        self._items = itertools.chain(first, self._items)
        if not first:
            return
        given = [(device, arguments(device, len(first))) for device in devices]
        self._spare.extend(given[len(first) :])
        names, each = zip(*given[: len(first)], strict=True)
        with ProcessPool(work, names, each) as pool:
            self._alive = set(range(len(first)))
            while self._alive:
                self.received(-1, None)
                for worker, message in pool.receive(_POLL_SECONDS):
                    self._take(pool, worker, message)
                self._hand_out(pool)

    def _take(self, pool: ProcessPool, worker: int, message: Any) -> None:
        if isinstance(message, Request):
            self._idle.append(worker)
        elif isinstance(message, Acknowledged):
            self.acknowledged(worker, self._held[worker].pop(message.number).item, message.result)
        elif isinstance(message, Finished) and self._dismissed:
            self._alive.discard(worker)
            self.finished(message.result)
        elif isinstance(message, ProcessFailed | Finished):
            self._alive.discard(worker)
            self._idle = deque(other for other in self._idle if other != worker)
            if self._spare and not self._dismissed:
                self._alive.add(pool.start(*self._spare.popleft()))
            self.failed(worker, message)
        elif isinstance(message, JobFailed):
            if message.remedy is None:
                raise RuntimeError(f"in a worker process: {message.problem}")
            raise self._error(message.problem, message.remedy)
        else:
            self.received(worker, message)

    def _hand_out(self, pool: ProcessPool) -> None:
        """Give items to workers that asked; dismiss all when nothing waits and nothing is held."""
        while self._idle and (task := self._next()) is not None:
            worker, number = self._idle.popleft(), next(self._numbers)
            self._held.setdefault(worker, {})[number] = task
            pool.send(worker, (number, task.item))
        if self._idle and not self._dismissed and not any(self._held.values()):
            self._dismissed = True
            for worker in self._alive:
                pool.send(worker, None)

    def _next(self) -> _Task[T] | None:
        if self._retries:
            return self._retries.popleft()
        if not self._all_read:
            for item in self._items:
                return _Task(item)
            self._all_read = True
        return self._suspects.popleft() if self._suspects else None

    def failed(self, worker: int, message: ProcessFailed | Finished) -> None:
        """Put what a failed worker held where others find it.

        :raises Exception: `error`, if no worker is left, or if an item has cost `MOST_FAILURES` by now.
        """
        reason, remedy = "a process ended before its work", "run again to go on"
        if isinstance(message, ProcessFailed):
            reason, remedy = message.reason, message.remedy
        again = []
        for task in self._held.pop(worker, {}).values():
            for item, suspect in self.remaining(worker, task.item):
                again.append(item)
                failures = task.failures + suspect
                (self._suspects if failures else self._retries).append(_Task(item, failures))
        most = max((task.failures for task in self._suspects), default=0)
        worst = self._name([task.item for task in self._suspects if task.failures == most]) if most else ""
        if most >= MOST_FAILURES:
            raise self._error(
                f"{most} processes failed with {worst} in hand, the last: {reason}",
                "leave that out, or do it apart with --devices cpu; what was finished is kept",
            )
        if not self._alive and not self._dismissed:
            having = f" with {worst} in hand, as another did" if most > 1 else ""
            raise self._error(f"every process failed, the last{having}: {reason}", remedy)
        self.notes.append(f"{reason}; {self.amount(again)} done again by others" if again else reason)
