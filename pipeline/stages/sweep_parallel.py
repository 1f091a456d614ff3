"""A sweep on several devices: a process each, which takes the next point of the grid whenever it is free.

What a process has done lies in the artifacts folder (`pipeline.stages.sweep`); one that is lost costs the point that it
was at (`pipeline.stages.work_queue`). A process takes some seconds to start (torch, a CUDA context, the features),
which a few small points do not repay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cache.devices import threads_each
from cache.workers.process_pool import Channel
from pipeline.stages.sweep import LoadedFeatures, Point, do_point
from pipeline.stages.work_queue import Done, Scheduler
from pipeline.workspace.artifacts import Artifacts


def do_points(
    artifacts: Path,
    points: Sequence[Point],
    seeds: Sequence[int],
    devices: Sequence[str],
    on_done: Callable[[int, str], None] = lambda done, what: None,
) -> tuple[str, ...]:
    """Do every point, a process a device; return a line for each device that was lost.

    :param on_done: called with the number of points done and what is being done.
    :raises PipelineError: see `Scheduler.run`.
    """
    devices = devices[: len(points)]
    dealer = Scheduler(points, _named)
    threads = threads_each(len(devices))
    given = [(artifacts, tuple(seeds), device, threads) for device in devices]

    def send(number: int, said: Any) -> None:
        underway = "; ".join(f"{point.method}, {point.settings.head}" for point in list(dealer.at.values())[:2])
        on_done(len(points) - dealer.left, underway)

    dealer.run(_serve, devices, given, send)
    return tuple(dealer.notes)


def _serve(channel: Channel, artifacts: Path, seeds: Sequence[int], device: str, threads: int) -> None:
    """Do points until no more come."""
    import torch

    torch.set_num_threads(threads)
    at_hand = LoadedFeatures(Artifacts(artifacts))
    for point in iter(channel.request, None):
        do_point(artifacts, point, seeds, device, features=at_hand.of(point))
        channel.send(Done())


def _named(point: Point) -> str:
    dataset = "" if point.dataset is None else f" on {point.dataset}"
    return f"{point.method}, {point.settings.head}{dataset}"
