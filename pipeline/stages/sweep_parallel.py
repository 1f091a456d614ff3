"""A sweep on several devices: a process per device, which takes the next point of the grid whenever it is free.

What a process has done lies in the artifacts folder (`pipeline.stages.sweep`); one that fails costs the point that it
was at (`cache.workers.Scheduler`). A process takes some seconds to start (torch, a CUDA context, the features), which a
few small points do not repay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cache.workers import Acknowledged, Channel, Scheduler, threads_each
from pipeline.errors import PipelineError
from pipeline.stages.sweep import LoadedFeatures, Point, do_point
from pipeline.workspace.artifacts import Artifacts


def do_points(
    artifacts: Path,
    points: Sequence[Point],
    devices: Sequence[str],
    on_done: Callable[[int, str], None] = lambda done, what: None,
) -> tuple[str, ...]:
    """Do every point, a process per device; return a line for each process that failed.

    :param on_done: called with the number of points done and what is in progress.
    :raises PipelineError: see `cache.workers.Scheduler.run`.
    """
    scheduler = _PointScheduler(points, on_done)
    scheduler.run(_serve, devices, lambda device, processes: (artifacts, device, threads_each(processes)))
    return tuple(scheduler.notes)


class _PointScheduler(Scheduler[Point]):
    def __init__(self, points: Sequence[Point], on_done: Callable[[int, str], None]) -> None:
        super().__init__(points, _named, PipelineError)
        self._on_done, self._done = on_done, 0

    def received(self, worker: int, message: Any) -> None:
        what = "; ".join(f"{point.fit.method}, {point.fit.head}" for point in self.in_progress[:2])
        self._on_done(self._done, what)

    def acknowledged(self, worker: int, item: Point, result: Any) -> None:
        self._done += 1


def _serve(channel: Channel, artifacts: Path, device: str, threads: int) -> None:
    """Do points until no more come."""
    import torch

    torch.set_num_threads(threads)
    loaded = LoadedFeatures(Artifacts(artifacts))
    for number, point in iter(channel.request, None):
        do_point(artifacts, point, device, features=loaded.of(point))
        channel.send(Acknowledged(number))


def _named(points: Sequence[Point]) -> str:
    """Say which points."""
    names = [
        f"{point.fit.method}, {point.fit.head}" + ("" if point.dataset is None else f" on {point.dataset}")
        for point in points
    ]
    return "; ".join(dict.fromkeys(names))
