"""Work dealt out to processes: each takes the next item whenever it is free, and tells when it is done.

What an item leaves behind lies in the artifacts folder under content addresses, so a process says no more than that.
One that is lost, killed or with its device, costs the item that it was at, which another does again; an item that
costs `_LOSSES` processes ends everything by name. Nobody is dismissed before the last item is done: until then there
may be one to do again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cache.workers.process_pool import Finished, JobFailed, ProcessFailed, ProcessPool, Request
from pipeline.errors import PipelineError

_LOSSES = 2
_POLL_SECONDS = 0.5

T = TypeVar("T")


@dataclass(frozen=True)
class Done:
    """A process has done the item that it was given."""


class Scheduler(Generic[T]):
    """Which items wait, who is at which, and how many processes each has cost."""

    def __init__(self, items: Sequence[T], named: Callable[[T], str]) -> None:
        """Begin with every item waiting; `named` names one in what is told about losses."""
        self.notes: list[str] = []
        self.left = len(items)
        self.at: dict[int, T] = {}
        self._named = named
        self._waiting = deque(items)
        self._asking: deque[int] = deque()
        self._losses: dict[T, int] = {}
        self._there: set[int] = set()

    def run(
        self,
        serve: Callable[..., None],
        devices: Sequence[str],
        given: Sequence[tuple[Any, ...]],
        on_news: Callable[[int, Any], None],
    ) -> None:
        """Run `serve(channel, *given[i])` in a process for each device until every item is done.

        :param on_news: called with a process's number and what it says about its item, and now and then with -1, None.
        :raises PipelineError: what a process raises; that every process was lost; that an item cost several.
        """
        self._there = set(range(len(devices)))
        with ProcessPool(serve, devices, given) as pool:
            while self.left:
                on_news(-1, None)
                for number, said in pool.receive(_POLL_SECONDS):
                    if not self._receive(number, said):
                        on_news(number, said)
                for number, item in self._hand_out():
                    pool.send(number, item)

    def _hand_out(self) -> list[tuple[int, T]]:
        """Give waiting items to processes that asked."""
        dealt = []
        while self._asking and self._waiting:
            number, item = self._asking.popleft(), self._waiting.popleft()
            self.at[number] = item
            dealt.append((number, item))
        return dealt

    def _receive(self, number: int, said: Any) -> bool:
        """Take in what a process says; False if it is not about dealing."""
        if isinstance(said, Request):
            self._asking.append(number)
        elif isinstance(said, Done):
            del self.at[number]
            self.left -= 1
        elif isinstance(said, ProcessFailed):
            self._fail_worker(number, said)
        elif isinstance(said, Finished):  # before it was told that nothing is left
            self._fail_worker(number, ProcessFailed("a process ended before its work", "run again to go on"))
        elif isinstance(said, JobFailed):
            if said.remedy is None:
                raise RuntimeError(f"in a process: {said.problem}")
            raise PipelineError(said.problem, said.remedy)
        else:
            return False
        return True

    def _fail_worker(self, number: int, lost: ProcessFailed) -> None:
        self._there.remove(number)
        if number in self._asking:
            self._asking.remove(number)
        item = self.at.pop(number, None)
        if item is not None:
            self._losses[item] = self._losses.get(item, 0) + 1
            self._waiting.appendleft(item)
            if self._losses[item] == _LOSSES:
                raise PipelineError(
                    f"{_LOSSES} processes were lost at {self._named(item)}, the last: {lost.reason}", lost.remedy
                )
        if not self._there:
            raise PipelineError(f"every process was lost, the last: {lost.reason}", lost.remedy)
        again = "" if item is None else f"; {self._named(item)} was done again by another"
        self.notes.append(f"{lost.reason}{again}")
