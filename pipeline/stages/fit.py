"""Stage two: heads on stored features, one run per seed, the seeds of a method trained together.

A `FitRequest` goes from the command line to the process that trains; `plan` says which runs it makes. A method that
chooses what it trains (`joint` where neither head nor epochs are given) does so once per dataset, features and
settings, never per seed. The choice is part of the runs' ids and a small record in the method's folder of runs.
Deleting it costs seconds: it is made again, the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cache
import heads
from cache.store import remove_stale_partials
from pipeline.errors import PipelineError
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.features import LabelledFeatures
from pipeline.workspace.outputs import check_writable
from pipeline.workspace.records import file_digest, keep, marked, read_kept, tell, write_record
from pipeline.workspace.runs import DAMAGED, HISTORY, Run, RunKey, is_run, read_run, whole_run


@dataclass(frozen=True)
class FitRequest:
    """One head per seed. None means the method's own setting, or what it chooses."""

    method: str
    seeds: tuple[int, ...]
    head: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    schedule: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Hyperparameters as given, by the names that `heads` takes them under."""
        return {name: getattr(self, name) for name in ("epochs", "batch_size", "lr", "schedule")}


@dataclass(frozen=True)
class FitPlan:
    """What the method chose, None if it chooses nothing, and where each run to be lies, or will."""

    choice: heads.Choice | None
    runs: dict[RunKey, Path]


def plan(artifacts: Artifacts, features: LabelledFeatures, request: FitRequest, device: str = "auto") -> FitPlan:
    """Name the runs of a request. A method that chooses chooses now, if it has not yet.

    :raises heads.HeadsError: if the method or a setting cannot be used, or candidates cannot be trained.
    :raises PipelineError: if texts of the dataset were not embedded.
    :raises cache.CacheError: if the choice cannot be written.
    """
    settings, choice = request.settings, None
    hyperparameters: dict[str, Any] = heads.hyperparameters(request.method, **settings)
    head = heads.head_of(request.method, request.head)
    if heads.is_chosen(request.method, request.head, request.epochs):
        choice = _choice(artifacts, features, request, hyperparameters, device)
        head = choice.head
        # it keeps its last epoch, not its best: another run than the same settings spelled out
        hyperparameters = {**hyperparameters, "epochs": choice.epochs, "chosen": True}
    nothing_trained = heads.is_closed_form(request.method) or (choice is not None and choice.closed_form)
    dataset, fingerprint, backbone = features.dataset.id, features.fingerprint, features.backbone
    place, settled = artifacts.runs / dataset / backbone / request.method, tuple(sorted(hyperparameters.items()))
    runs = {}
    for seed in (0,) if nothing_trained else request.seeds:
        key = RunKey(dataset, fingerprint, request.method, head, seed, settled)
        runs[key] = place / key.id
    return FitPlan(choice, runs)


def _choice(
    artifacts: Artifacts, features: LabelledFeatures, request: FitRequest, settings: dict[str, Any], device: str
) -> heads.Choice:
    """The choice kept, or made and kept now."""
    identity = json.dumps([features.fingerprint, settings])
    name = hashlib.blake2b(identity.encode(), digest_size=6).hexdigest()
    path = artifacts.runs / features.dataset.id / features.backbone / request.method / f"choice-{name}.json"
    kept = read_kept(path, heads.Choice)
    if kept is not None:
        return kept
    choice = heads.choose(
        *features.split("train"),
        method=request.method,
        validation=features.validation,
        classes=features.dataset.hierarchy.sizes,
        device=device,
        batch_size=request.batch_size,
        lr=request.lr,
        schedule=request.schedule,
    )
    keep(lambda: write_record(path, choice.to_json()), path)
    return choice


_DERIVED = ("scores.json", "answers-*", "galleries-*", "train-embeddings.*", "map-*")
"""What is computed again from a run and its features."""


@dataclass(frozen=True)
class Fitted:
    """The runs of a method in the order of the seeds, the ids of those trained just now, and the seconds it took."""

    runs: list[Run]
    trained: frozenset[str]
    seconds: float


def fit(
    artifacts: Artifacts,
    features: LabelledFeatures,
    request: FitRequest,
    *,
    device: str = "auto",
    progress: Callable[[heads.FitProgress], None] | None = None,
) -> Fitted:
    """Trains the heads asked for that do not exist yet.

    Of two processes that train the same run at the same time both give it, and the first one's files are kept. What
    killed ones left half written is removed. A run that is damaged is trained again; a seed whose run cannot be read or
    written stops none of the others, and is raised at the end.

    :param device: see `heads.fit_many`. A run's id does not know it: which device trained a head is no other head.
    :raises heads.HeadsError: if method, preset, labels or settings cannot be used, or a loss is not finite.
    :raises PipelineError: if texts of the dataset were not embedded, or a run may not be read.
    :raises cache.CacheError: if a run cannot be written.
    """
    planned = plan(artifacts, features, request, device)
    began = time.monotonic()
    todo: dict[int, RunKey] = {}  # by seed
    trained: set[str] = set()
    failures: list[Exception] = []
    for key, folder in planned.runs.items():
        try:
            if whole_run(folder) is None:
                todo[key.seed] = key
        except (PipelineError, heads.HeadsError) as error:  # one that may not be read keeps no other from training
            failures.append(error)
    if todo:
        first = planned.runs[next(iter(todo.values()))]
        first.parent.mkdir(parents=True, exist_ok=True)
        check_writable(first)
        remove_stale_partials(first.parent)
        train, train_labels = features.split("train")
        validation = features.validation
        results = heads.fit_many(
            train,
            train_labels,
            method=request.method,
            validation=validation,
            head=request.head,
            seeds=list(todo),
            classes=features.dataset.hierarchy.sizes,
            choice=planned.choice,
            device=device,
            progress=progress,
            **request.settings,
        )
        for key, result in zip(todo.values(), results, strict=True):
            try:
                write_run(planned.runs[key], result, key, features)
                trained.add(key.id)
            except (OSError, ValueError) as error:  # of the file system; the other seeds' heads may still be written
                failures.append(error)
    if failures:
        raise failures[0]
    return Fitted(list(map(read_run, planned.runs.values())), frozenset(trained), time.monotonic() - began)


def write_run(folder: Path, result: heads.FitResult, key: RunKey, features: LabelledFeatures) -> None:
    """Commits a trained head with all that is needed to use and to judge it later.

    A run that another process committed meanwhile stays: its id says that it is the same. What else stands in its place
    is moved aside.

    :raises cache.CacheError: if the file system refuses it.
    """
    import polars as pl

    folder.parent.mkdir(parents=True, exist_ok=True)
    if whole_run(folder) is None:
        make_room(folder)
    record = {
        "id": key.id,
        "dataset": key.dataset,
        "backbone": features.backbone,
        "backbone_source": features.source.source,
        "prompt": features.source.prompt,
        "layer": features.layer,
        "fingerprint": key.fingerprint,
        "features": dict(features.store.description),
        "method": key.method,
        "head": key.head,
        "seed": key.seed,
        "hyperparameters": dict(key.hyperparameters),
        "seconds": result.seconds,
        "parameters": result.parameters,
        "best_epoch": result.best_epoch,
        "chosen": dict(result.chosen),
        "dims": list(result.head.dims),
        "levels": list(features.dataset.levels),
        "classes": [list(names) for names in features.dataset.hierarchy.classes],
    }
    try:
        with cache.store.atomic_folder(folder) as partial:
            pl.DataFrame(result.history).write_parquet(partial / HISTORY)
            files = {HISTORY: file_digest((partial / HISTORY).read_bytes())}
            heads.save(result.head, partial, marked({**record, "files": files}))
    except cache.CacheError:
        if not is_run(folder):
            raise


def make_room(folder: Path) -> None:
    """Moves away what stands where a run is about to be written and is no whole run.

    What can be computed again goes; all else is kept beside it, under another name that a line says.

    :raises OSError: if the file system refuses it.
    """
    if not folder.is_dir():
        return
    left = [path for path in folder.iterdir() if not any(path.match(pattern) for pattern in _DERIVED)]
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        if not left:
            shutil.rmtree(folder)
            return
        names = (folder.with_name(f"{folder.name}{DAMAGED}{number or ''}") for number in itertools.count())
        aside = next(name for name in names if not name.exists())
        folder.rename(aside)
        tell(f"{folder}: what stood there is now {aside.name}")
