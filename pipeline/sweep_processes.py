"""A sweep on several devices: a process each, which takes the next point of the grid whenever it is free.

What a process has done lies in the artifacts folder under content addresses (`pipeline.sweep_points`), so it tells the
parent no more than that. A process that is lost, killed or with its device, costs the point that it was at, which
another does again; a point that costs `_LOSSES` processes ends the sweep by name. Nobody is dismissed before the last
point is done: until then there may be one to do again. A process takes some seconds to start (torch, a CUDA context,
the features), which a few small points do not repay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.crew import Asked, Crew, Failed, Line, Lost
from cache.devices import threads_each
from pipeline.artifacts import Artifacts
from pipeline.errors import PipelineError
from pipeline.sweep import Point
from pipeline.sweep_points import FeaturesAtHand, do_point

_LOSSES = 2
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class _Done:
    """A process has done the point that it was given."""


def do_points(
    artifacts: Path,
    points: Sequence[Point],
    seeds: Sequence[int],
    devices: Sequence[str],
    on_done: Callable[[int, str], None] = lambda done, what: None,
) -> tuple[str, ...]:
    """Do every point, a process a device; return a line for each device that was lost.

    :param on_done: called with the number of points done and what is being done.
    :raises PipelineError: what a process raises; that every process was lost; that a point cost several.
    """
    devices = devices[: len(points)]
    dealer = _Dealer(points, devices)
    threads = threads_each(len(devices))
    given = [(artifacts, tuple(seeds), device, threads) for device in devices]
    with Crew(_serve, devices, given) as crew:
        while dealer.left:
            on_done(len(points) - dealer.left, dealer.underway)
            for number, said in crew.hear(_POLL_SECONDS):
                dealer.take(number, said)
            for number, point in dealer.deal():
                crew.tell(number, point)
    return tuple(dealer.notes)


def _serve(line: Line, artifacts: Path, seeds: Sequence[int], device: str, threads: int) -> None:
    """Do points until no more come."""
    import torch

    torch.set_num_threads(threads)
    at_hand = FeaturesAtHand(Artifacts(artifacts))
    for point in iter(line.ask, None):
        do_point(artifacts, point, seeds, device, features=at_hand.of(point))
        line.say(_Done())


class _Dealer:
    """Which points wait, who is at which, and how many processes each has cost."""

    def __init__(self, points: Sequence[Point], devices: Sequence[str]) -> None:
        self.notes: list[str] = []
        self.left = len(points)
        self._waiting = deque(points)
        self._at: dict[int, Point] = {}
        self._asking: deque[int] = deque()
        self._there = set(range(len(devices)))
        self._losses: dict[Point, int] = {}

    @property
    def underway(self) -> str:
        """What is being done."""
        return "; ".join(f"{point.method}, {point.settings.head}" for point in list(self._at.values())[:2])

    def deal(self) -> list[tuple[int, Point]]:
        """Give waiting points to processes that asked."""
        dealt = []
        while self._asking and self._waiting:
            number, point = self._asking.popleft(), self._waiting.popleft()
            self._at[number] = point
            dealt.append((number, point))
        return dealt

    def take(self, number: int, said: Any) -> None:
        """Take in what a process says.

        :raises PipelineError: see `do_points`.
        """
        if isinstance(said, Asked):
            self._asking.append(number)
        elif isinstance(said, _Done):
            del self._at[number]
            self.left -= 1
        elif isinstance(said, Lost):
            self._lose(number, said)
        elif isinstance(said, Failed):
            if said.remedy is None:
                raise RuntimeError(f"in a process of the sweep: {said.problem}")
            raise PipelineError(said.problem, said.remedy)

    def _lose(self, number: int, lost: Lost) -> None:
        self._there.remove(number)
        if number in self._asking:
            self._asking.remove(number)
        point = self._at.pop(number, None)
        if point is not None:
            self._losses[point] = self._losses.get(point, 0) + 1
            self._waiting.appendleft(point)
            if self._losses[point] == _LOSSES:
                raise PipelineError(
                    f"{_LOSSES} processes were lost at {_named(point)}, the last: {lost.reason}", lost.remedy
                )
        if not self._there:
            raise PipelineError(f"every process was lost, the last: {lost.reason}", lost.remedy)
        again = "" if point is None else f"; {_named(point)} was done again by another"
        self.notes.append(f"{lost.reason}{again}")


def _named(point: Point) -> str:
    dataset = "" if point.dataset is None else f" on {point.dataset}"
    return f"{point.method}, {point.settings.head}{dataset}"
