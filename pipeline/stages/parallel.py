"""Several fits on a CPU: one process per core, which takes the next method and seed whenever it is free.

Two cores that share one fit wait for each other, if both find something to do at all; two fits on one core each never
do, nor do they share Python's lock, as threads of one process would. A seed's bits are the same either way
(`heads.training.trainer`). Where everything is to be scored anyway, the process that trained a head scores it too, and
untrained baselines are work like a fit. What it costs: a process takes two or three seconds to start, so that little
work is done here, and the last fit may have a core all to itself; the longest therefore begin first.

A sweep on several devices: a process per device, which takes the next point of the grid whenever it is free.

What a process has done lies in the artifacts folder (`pipeline.stages.sweep`); one that fails costs the point that it
was at (`cache.workers.Scheduler`). A process takes some seconds to start (torch, a CUDA context, the features), which a
few small points do not repay.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import data
import heads
from cache import FeatureStore
from cache.workers import Acknowledged, Channel, Scheduler, choose_devices, threads_each
from heads.methods import method_named
from heads.presets import HeadShape, preset
from pipeline.cost.head import step
from pipeline.errors import PipelineError
from pipeline.evaluation.embeddings import FLAT, Scorable, baselines_of, run_scorable
from pipeline.evaluation.score import kept_predictions, score
from pipeline.stages.fit import FitRequest, fit, plan
from pipeline.stages.sweep import LoadedFeatures, Point, do_point
from pipeline.workspace.artifacts import Artifacts, BackboneSource
from pipeline.workspace.features import LabelledFeatures
from pipeline.workspace.runs import is_run

WORTH = 5e11
"""Floating-point operations, some 7 CPU-seconds, from which on processes repay their start."""

_MOST = 8
"""Processes at most: each holds torch and the features, and a container may have less memory than cores."""


_PASSES = 36
"""Passes over the training rows that a logistic regression takes as long as, its choice included, at the rate of a
head's step. It makes more, but in larger products, which are faster."""


@dataclass(frozen=True)
class Job:
    """One seed of one method to be trained, or without a request a baseline to be scored.

    `name` is what a message calls it, `work` the floating-point operations, `run` the id of the run to be.
    """

    name: str
    work: float
    request: FitRequest | None = None
    run: str = ""


@dataclass(frozen=True)
class _Step:
    """How far a process is with what it does, from 0 to 1, and how far that is in words."""

    share: float
    shown: str


def untrained(artifacts: Artifacts, features: LabelledFeatures, requests: Sequence[FitRequest]) -> list[Job]:
    """What is not trained yet, the longest first; closed forms only beside what is: alone they take a second.

    :raises heads.HeadsError: if a method or a setting cannot be used.
    """
    found: list[Job] = []
    for request in requests:
        planned = plan(artifacts, features, request)
        work = _work(features, request, planned.choice)
        found += [
            Job(f"{request.method} {key.seed}", work, replace(request, seeds=(key.seed,)), key.id)
            for key, folder in planned.runs.items()
            if not is_run(folder)
        ]
    return sorted(found, key=lambda job: -job.work) if any(job.work for job in found) else []


def unscored(artifacts: Artifacts, features: LabelledFeatures, protocols: Sequence[str]) -> list[Job]:
    """The baselines whose predictions under some protocol are not kept yet."""
    rows, hierarchy = len(features.dataset.split_rows("train")), features.dataset.hierarchy
    product = 2.0 * rows * int(features.store.description["hidden_size"])
    return [
        Job(
            one.identity.method,
            2 * _PASSES * product * hierarchy.sizes[-1]
            if one.identity.method == FLAT
            else product * len(features.dataset.split_rows("test")),
        )
        for one in baselines_of(artifacts, features)
        if any(kept_predictions(one.folder, name) is None for name in protocols if one.folder and one.answers(name))
    ]


def processes_for(todo: Sequence[Job]) -> int:
    """How many processes to share the work; 1 where a GPU trains, or where they would not be repaid."""
    if len(todo) < 2 or sum(job.work for job in todo) < WORTH or choose_devices("auto") != ["cpu"]:
        return 1
    return min(len(todo), threads_each(1), _MOST)


def fit_at_once(
    artifacts: Artifacts,
    features: LabelledFeatures,
    todo: Sequence[Job],
    processes: int,
    on_news: Callable[[float, str], None],
    protocols: Sequence[str] = (),
) -> tuple[str, ...]:
    """Do everything in `todo`; return a line for each process that failed, whose work another took.

    :param protocols: under which heads that were trained are scored, and baselines.
    :param on_news: called now and then with the share of all work that is done, and what is being done.
    :raises PipelineError: what a process raises, see `pipeline.stages.fit.fit` and `cache.workers.Scheduler.run`.
    """
    given = (artifacts, features.dataset, features.store.folder, features.source, tuple(protocols))
    threads = max(1, threads_each(1) // processes)
    scheduler = _Shown(todo, on_news)
    scheduler.run(_serve, ["cpu"] * processes, lambda device, started: (*given, threads))
    return tuple(scheduler.notes)


class _Shown(Scheduler[Any]):
    """Adds up how far everything is, and names what is in progress."""

    def __init__(self, todo: Sequence[Job | Point], on_news: Callable[[float, str], None]) -> None:
        super().__init__(todo, lambda items: "; ".join(dict.fromkeys(item.name for item in items)), PipelineError)
        self._steps = dict.fromkeys(todo, _Step(0.0, ""))
        self._on_news = on_news

    def received(self, worker: int, message: Any) -> None:
        if isinstance(message, _Step):
            self._steps |= dict.fromkeys(self.held_by(worker), message)
        done = sum(item.work * step.share for item, step in self._steps.items())
        shown = "; ".join(f"{item.name} {self._steps[item].shown}".rstrip() for item in self.in_progress[:2])
        self._on_news(done / sum(item.work for item in self._steps), shown)

    def acknowledged(self, worker: int, item: Job | Point, result: Any) -> None:
        self._steps[item] = _Step(1.0, "done")


def _serve(
    channel: Channel,
    artifacts: Artifacts,
    dataset: data.Dataset,
    store: Path,
    source: BackboneSource,
    protocols: tuple[str, ...],
    threads: int,
) -> None:
    """Train seeds and score until no more come."""
    import torch

    torch.set_num_threads(threads)
    features = LabelledFeatures(dataset, FeatureStore.open(store), source)

    def send(p: heads.FitProgress) -> None:
        channel.send(_Step(p.share, f"{p.epoch}/{p.epochs}"))

    def scorables_of(job: Job) -> list[Scorable]:
        if job.request is None:
            return [one for one in baselines_of(artifacts, features) if one.identity.method == job.name]
        fitted = fit(artifacts, features, job.request, device="cpu", progress=send)
        return [run_scorable(run, features) for run in fitted.runs]

    for number, job in iter(channel.request, None):
        found = scorables_of(job)
        if protocols:
            channel.send(_Step(0.0 if job.request is None else 1.0, "scored"))
        for protocol, one in itertools.product(protocols, found):
            if one.answers(protocol):
                score(one, protocol)
        channel.send(Acknowledged(number))


def _work(features: LabelledFeatures, request: FitRequest, choice: heads.Choice | None) -> float:
    """Operations of one seed's training, counted from shapes; 0 of a closed form."""
    if heads.is_closed_form(request.method) or (choice is not None and choice.closed_form):
        return 0.0
    row = method_named(request.method)
    chosen, head = (
        heads.hyperparameters(request.method, **request.settings),
        heads.head_of(request.method, request.head),
    )
    if choice is not None:
        chosen, head = {**chosen, "epochs": choice.epochs}, choice.head
    shape = HeadShape.of(
        preset(head),
        int(features.store.description["hidden_size"]),
        features.dataset.hierarchy.sizes,
        proxy_temperature=row.settings.get("proxy_temperature"),
    )
    rows = len(features.dataset.split_rows("train"))
    batch = min(chosen["batch_size"], rows)
    return float(chosen["epochs"] * (rows // batch) * step(row, shape, batch).total)


def do_points(
    artifacts: Artifacts,
    points: Sequence[Point],
    devices: Sequence[str],
    on_news: Callable[[float, str], None] = lambda share, what: None,
) -> tuple[str, ...]:
    """Do every point, a process per device; return a line for each process that failed.

    :param on_news: as for `fit_at_once`.
    :raises PipelineError: see `cache.workers.Scheduler.run`.
    """
    scheduler = _Shown(points, on_news)
    scheduler.run(_serve_points, devices, lambda device, processes: (artifacts, device, threads_each(processes)))
    return tuple(scheduler.notes)


def _serve_points(channel: Channel, artifacts: Artifacts, device: str, threads: int) -> None:
    """Do points until no more come."""
    import torch

    torch.set_num_threads(threads)
    loaded = LoadedFeatures(artifacts)
    for number, point in iter(channel.request, None):
        do_point(artifacts, point, device, loaded.of(point))
        channel.send(Acknowledged(number))
