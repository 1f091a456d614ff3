"""Fitting and scoring as the command line shows them: each with its progress bar, its choices said and its one line.

`fit-head`, `score`, `sweep` and `run` are these functions in different company, so they can only agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import heads
from pipeline.errors import PipelineError
from pipeline.evaluation.comparison import Entry
from pipeline.evaluation.embeddings import Scorable
from pipeline.evaluation.score import entries, score, score_grid
from pipeline.evaluation.scores import Score
from pipeline.stages.fit import FitRequest, Fitted, fit
from pipeline.stages.parallel import do_points, fit_at_once, processes_for, unscored, untrained
from pipeline.stages.sweep import Grid, LoadedFeatures, Swept, do_point, points, to_do
from pipeline.terminal.command import Session
from pipeline.terminal.console import duration
from pipeline.workspace.features import LabelledFeatures, labelled_features, runs_of
from pipeline.workspace.runs import Run


def fit_line(method: str, fitted: Fitted, at_once: frozenset[str] = frozenset()) -> str:
    """One line on what a fit did.

    :param at_once: ids of runs trained just before, several at a time: their seconds add up to CPU-seconds.
    """
    first, closed_form = fitted.runs[0].record, fitted.runs[0].closed_form
    seeds = f"seed{'' if len(fitted.runs) == 1 else 's'} {', '.join(str(run.seed) for run in fitted.runs)}"
    named = method if closed_form else f"{method}, {seeds}"  # a closed form has no seed
    beside = [run for run in fitted.runs if run.id in at_once] if at_once else []
    trained = len(fitted.trained) + len(beside)
    if not trained:
        return f"{method}: {'computed before' if closed_form else f'trained before with {seeds}'}, nothing to do"
    seconds = sum((float(run.record["seconds"]) for run in beside), fitted.seconds if fitted.trained else 0.0)
    how = "computed" if closed_form else "trained"
    epochs = ", ".join(str(run.record["best_epoch"]) for run in fitted.runs)
    which = "" if trained == len(fitted.runs) else f"{trained} of {len(fitted.runs)} "
    took = f"{seconds:,.0f} CPU-seconds" if beside else duration(seconds)
    return (
        f"{named}: {which}{how} in {took}, "
        f"{first['head']} head, {first['parameters']:,} parameters"
        + ("" if closed_form else f", best epoch {epochs}")
        + (f"; chosen: {first['chosen']['reason']}" if first.get("chosen") else "")
    )


def features_of(session: Session, options: Mapping[str, Any]) -> LabelledFeatures:
    """The stored features that `--dataset`, `--backbone` and `--layer` name, and a line that says which."""
    features = labelled_features(
        session.artifacts, dataset=options["dataset"], backbone=options["backbone"], layer=options["layer"]
    )
    session.console.say(f"features: {features.dataset.id}, {len(features.dataset):,} rows, in {features.store.folder}")
    return features


def fit_stage(
    session: Session,
    features: LabelledFeatures,
    methods: Sequence[str],
    options: Mapping[str, Any],
    protocols: Sequence[str] = (),
) -> list[Run]:
    """Stage two, shown: the seeds of each method trained together.

    :param protocols: under which heads and baselines will be scored next: done beside the fits where processes share
        them.
    """
    requests = [
        FitRequest(method, tuple(options["seeds"]), options["head"], options["epochs"], options["batch_size"],
                   options["lr"], options["schedule"])
        for method in methods
    ]  # fmt: skip
    trained = _fit_at_once(session, features, requests, protocols)
    runs = []
    for request in requests:
        with session.console.progress(f"fitting {request.method}") as bar:
            fitted = fit(
                session.artifacts,
                features,
                request,
                progress=lambda p, bar=bar: bar.update(p.share, 1.0, f"epoch {p.epoch}/{p.epochs}"),  # type: ignore[misc]
            )
        runs += fitted.runs
        session.console.show(fit_line(request.method, fitted, trained))
    return runs


def _fit_at_once(
    session: Session, features: LabelledFeatures, requests: Sequence[FitRequest], protocols: Sequence[str]
) -> frozenset[str]:
    """Train what is lacking in several processes, where that is faster; return the ids of the runs trained."""
    if sum(len(request.seeds) for request in requests) < 2:
        return frozenset()
    trainings = untrained(session.artifacts, features, requests)
    todo = [*trainings, *(unscored(session.artifacts, features, protocols) if trainings and protocols else ())]
    processes = processes_for(todo)
    if processes == 1:
        return frozenset()
    what = f"fitting {len(trainings)} heads" + (", scoring" if protocols else "")
    todo.sort(key=lambda job: -job.work)
    with session.console.progress(f"{what}, {processes} at a time") as bar:
        lost = fit_at_once(session.artifacts, features, todo, processes, bar.share, protocols)
    for line in lost:
        session.console.say(line)
    return frozenset(training.run for training in trainings)


def score_stage(session: Session, scorables: Sequence[Scorable], protocols: Sequence[str], k: int = 5) -> list[Score]:
    """Stage three, shown: one score per scorable and protocol, protocols outermost."""
    scores: list[Score] = []
    with session.console.progress("scoring") as bar:
        for protocol in protocols:
            for scorable in (one for one in scorables if one.answers(protocol)):
                bar.update(len(scores), len(scorables) * len(protocols), f"{scorable.identity.method}, {protocol}")
                scores.append(score(scorable, protocol, k))
    return scores


def grid_stage(session: Session, scorables: Sequence[Scorable], sizes: Sequence[int] | None, k: int = 5) -> list[Score]:
    """The 2 x 2 of gallery size and origin, shown as it goes: one score per scorable and cell."""
    cells: list[Score] = []
    with session.console.progress("scoring galleries") as bar:
        for done, scorable in enumerate(one for one in scorables if one.predict is None):
            bar.update(done, len(scorables), scorable.identity.method)
            cells += score_grid(scorable, sizes, k)
    return cells


def entries_stage(session: Session, scorables: Sequence[Scorable], protocol: str, k: int = 5) -> list[Entry]:
    """Every prediction of every run under one protocol, shown as it comes."""
    with session.console.progress(f"predicting, {protocol}") as bar:
        predicted = []
        for entry in entries([one for one in scorables if one.answers(protocol)], protocol, k):
            predicted.append(entry)
            bar.update(len(predicted), len(scorables), entry.method)
    return predicted


def usable(runs: Sequence[Run], say: Callable[[str], None]) -> list[Run]:
    """The runs whose heads are there and undamaged; each other one is named.

    :raises heads.HeadsError: what is wrong with the first, if none is.
    """
    found, problems = [], []
    for run in runs:
        try:
            if not heads.check(run.folder):
                run.load()
            found.append(run)
        except heads.HeadsError as error:
            problems.append(error)
    if problems and not found:
        raise problems[0]
    for problem in problems:
        say(f"{problem}; left out ({problem.remedy})")
    return found


def runs_to_judge(session: Session, features: LabelledFeatures, methods: Sequence[str] | None) -> list[Run]:
    """The runs trained on these features; those whose heads are damaged are named and left out.

    :raises PipelineError: if there are none; what it says to do works as printed.
    :raises heads.HeadsError: if no head can be loaded.
    """
    found = usable(runs_of(session.artifacts, features, methods), session.console.say)
    if found:
        return found
    id_ = features.dataset.id
    others = ", ".join(dict.fromkeys(run.method for run in runs_of(session.artifacts, features)))
    known = bool(session.artifacts.ids_answering(id_))
    named = id_ if known else id_.rpartition("-")[0]
    train = (
        f"pipeline fit-head --method {','.join(methods or ('v5', 'mrl', 'joint'))} --dataset {named} "
        f"--backbone {features.store.folder.name}"
    )
    what = f"of {' or '.join(methods)} " if methods and others else ""
    raise PipelineError(
        f"no run {what}was trained on {id_} with these features of {features.backbone}"
        + ("" if known else ": its texts or labels have changed since it was embedded, or its name or options"),
        f"name one of these methods: {others}; or train: {train}" if what else f"train first: {train}",
    )


def sweep_stage(session: Session, grid: Grid, devices: Sequence[str] = ("auto",)) -> Swept:
    """Stages two and three over a grid, shown; features and datasets are read once for each combination of theirs.

    On several devices each has a process, and what is below then finds everything done.
    """
    todo = list(points(grid))
    at_hand = LoadedFeatures(session.artifacts)
    lacking, to_train = to_do(session.artifacts, todo, at_hand)
    trained: frozenset[str] = frozenset()
    runs: dict[str, tuple[Run, Score]] = {}  # points may share a run: a setting changes no closed form
    with session.console.progress("sweeping") as bar:
        if len(devices) > 1 and len(lacking) > 1:
            for line in do_points(session.artifacts, lacking, devices, bar.share):
                session.console.say(line)
            trained = to_train
        for done, point in enumerate(todo):
            bar.update(done, len(todo), point.name)
            here = do_point(session.artifacts, point, devices[0], at_hand.of(point))
            trained |= here.trained
            runs |= {run.id: (run, score) for run, score in zip(here.runs, here.scores, strict=True)}
    return Swept([run for run, _ in runs.values()], [score for _, score in runs.values()], trained)
