"""A sweep on a Ray cluster: one task per point of the grid, on a GPU each where the cluster has any.

The unit is the same as on one machine (`pipeline.stages.sweep`): a task writes runs and scores into the artifacts
folder, which every node shares, under content addresses, and returns nothing but what went wrong. So a lost node costs
the points that were being done there, which Ray starts again elsewhere, and whoever asked goes over the grid afterwards
and finds everything done. On CPUs the heads are those of a local sweep, bit for bit: a fit's bits do not depend on how
many threads compute it, so a task takes as many processors as it can use, and neither is part of a run's name.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.stages.sweep import Grid, LoadedFeatures, Point, Swept, do_point, points, to_do
from pipeline.stages.with_progress import sweep_stage
from pipeline.terminal.command import Session
from pipeline.workspace.artifacts import Artifacts

DEVICES = ("auto", "cpu", "cuda")
_RETRIES = 3
_POLL_SECONDS = 0.2


def sweep_on_cluster(session: Session, grid: Grid, devices: str, ray_address: str | None) -> Swept:
    """Stages two and three over a grid on a cluster, shown.

    :param devices: "auto" (GPUs where the cluster has any), "cpu" or "cuda".
    :raises cache.CacheError: no cluster there, or a node that does not share the artifacts folder.
    :raises PipelineError: what a task raises, or that its node was lost again and again.
    """
    if devices not in DEVICES:
        raise PipelineError(f"--devices {devices} with --engine ray", f"use one of {', '.join(DEVICES)}")
    lacking, to_train = to_do(session.artifacts, points(grid), LoadedFeatures(session.artifacts))
    if lacking:
        with session.console.progress("sweeping") as bar:
            where = do_points_on_cluster(
                session.artifacts.root,
                lacking,
                devices,
                ray_address,
                lambda done: bar.update(done, len(lacking), "on the cluster"),
            )
        session.console.say(where)
    swept = sweep_stage(session, grid)
    return replace(swept, trained=swept.trained | to_train)


def do_points_on_cluster(
    artifacts: Path,
    todo: Sequence[Point],
    devices: str,
    ray_address: str | None,
    on_done: Callable[[int], None] = lambda done: None,
) -> str:
    """Do every point, one task each; return a line that says where.

    :param on_done: called with the number of points done.
    :raises cache.CacheError: see `cache.cluster.connection.connected` and `cache.cluster.connection.check_shared`.
    :raises PipelineError: see `sweep_on_cluster`.
    """
    from cache.cluster import check_shared, connected, import_ray, living_nodes

    artifacts = artifacts.resolve()
    with connected(ray_address) as cluster:
        ray, nodes = import_ray(), living_nodes()
        check_shared(artifacts)
        gpus = 0 if devices == "cpu" else sum(node.gpus for node in nodes)
        if devices == "cuda" and not gpus:
            raise PipelineError("--devices cuda: the cluster has no GPU", "use cpu, or start its nodes with their GPUs")
        cpus = (
            1
            if gpus
            else _processors([node.cpus for node in nodes], len(todo), max(len(point.fit.seeds) for point in todo))
        )
        options = {"num_cpus": cpus, "num_gpus": 1 if gpus else 0, "max_retries": _RETRIES}
        task = ray.remote(fit_and_score).options(scheduling_strategy="SPREAD", **options)
        device = "cuda:0" if gpus else "cpu"
        _wait_for([task.remote(str(artifacts), point, device, cpus) for point in todo], on_done)
        each = "a GPU" if gpus else "1 processor" if cpus == 1 else f"{cpus} processors"
        return f"{len(todo)} points on {cluster}, {len(nodes)} node{'' if len(nodes) == 1 else 's'}, {each} per point"


def _processors(cpus: Sequence[int], tasks: int, seeds: int) -> int:
    """Return how many processors a task gets: an equal share, no more than a node has or a fit can use."""
    return max(1, min(sum(cpus) // tasks, 2 * seeds, min([n for n in cpus if n] or [1])))


def _wait_for(tasks: list[Any], on_done: Callable[[int], None]) -> None:
    """Return when every task has; one that fails, or an interrupt, ends the others: the cluster may be another's."""
    from cache.cluster import import_ray

    ray = import_ray()
    waiting = tasks
    try:
        on_done(0)
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1, timeout=_POLL_SECONDS)
            for reference in done:
                failure = ray.get(reference)
                if failure is not None:
                    raise PipelineError(*failure)
            on_done(len(tasks) - len(waiting))
    except ray.exceptions.RayError as error:
        raise explained(error) from error
    finally:
        for reference in waiting:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.cancel(reference)


def explained(error: Exception) -> PipelineError:
    """Return what a person can make of an error of Ray's: memory, nodes that come and go, or what the task raised."""
    from cache import CacheError
    from cache.cluster import import_ray, reason_of

    gone = import_ray().exceptions
    found = reason_of(error)
    if isinstance(found, CacheError):
        return PipelineError(found.problem, found.remedy)
    if isinstance(error, gone.WorkerCrashedError | gone.OutOfMemoryError):
        return PipelineError(
            f"a point of the sweep lost its process {_RETRIES + 1} times",
            "its memory may have run out: see Ray's logs; run again to go on, what is done stays done",
        )
    last = (str(found).strip().splitlines() or [""])[-1].strip()
    return PipelineError(
        f"a point of the sweep failed on the cluster: {last[:200] or type(found).__name__}",
        "see `ray status` and Ray's logs; run again to go on, what is done stays done",
    )


def fit_and_score(artifacts: str, point: Point, device: str, threads: int) -> tuple[str, str] | None:
    """Run in a task: do a point; return what a person did wrong as problem and remedy, None if nothing."""
    import torch

    torch.set_num_threads(threads)
    try:
        do_point(Artifacts(Path(artifacts)), point, device, _at_hand(artifacts).of(point))
    except Exception as error:
        remedy = getattr(error, "remedy", None)
        if remedy is None:
            raise
        return str(error), str(remedy)
    return None


@functools.cache
def _at_hand(artifacts: str) -> LoadedFeatures:
    """The features that this process read last: Ray gives it one point after another."""
    return LoadedFeatures(Artifacts(Path(artifacts)))
