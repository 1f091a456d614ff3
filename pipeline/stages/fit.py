"""Stage two: heads on stored features, one run per seed, the seeds of a method trained together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import heads
from cache.store import remove_stale_partials
from pipeline.errors import PipelineError
from pipeline.stages.choice import choice_for
from pipeline.stages.settings import FitSettings
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.features import LabelledFeatures
from pipeline.workspace.outputs import check_writable
from pipeline.workspace.runs import Run, RunKey, read_run, run_folder, whole_run
from pipeline.workspace.write_run import write_run


@dataclass(frozen=True)
class Fitted:
    """The runs of a method in the order of the seeds, the ids of those trained just now, and the seconds it took."""

    runs: list[Run]
    trained: frozenset[str]
    seconds: float


def fit(
    artifacts: Artifacts,
    features: LabelledFeatures,
    method: str,
    seeds: Sequence[int],
    settings: FitSettings,
    *,
    device: str = "auto",
    progress: Callable[[heads.FitProgress], None] | None = None,
) -> Fitted:
    """Trains the heads of one method that do not exist yet.

    Of two processes that train the same run at the same time both give it, and the first one's files are kept. What
    killed ones left half written is removed. A run that is damaged is trained again; a seed whose run cannot be read or
    written stops none of the others, and is raised at the end.

    :param device: see `heads.fit_many`. A run's id does not know it: which device trained a head is no other head.
    :raises heads.HeadsError: if method, preset, labels or settings cannot be used, or a loss is not finite.
    :raises PipelineError: if texts of the dataset were not embedded, or a run may not be read.
    :raises cache.CacheError: if a run cannot be written.
    """
    choice = choice_for(artifacts, features, method, settings, device)
    seeds = _seeds(method, seeds, choice)
    keys = [_key(features, method, seed, settings, choice) for seed in seeds]
    folders = [run_folder(artifacts, key, features.backbone) for key in keys]
    began = time.monotonic()
    todo, failures = _lacking(folders)
    if todo:
        folders[0].parent.mkdir(parents=True, exist_ok=True)
        check_writable(folders[0])
        remove_stale_partials(folders[0].parent)
        train, train_labels = features.split("train")
        validation = features.split("val") if len(features.dataset.split_rows("val")) else None
        results = heads.fit_many(
            train,
            train_labels,
            method=method,
            validation=validation,
            head=settings.head,
            seeds=[seeds[i] for i in todo],
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            lr=settings.lr,
            schedule=settings.schedule,
            classes=features.dataset.hierarchy.sizes,
            choice=choice,
            device=device,
            progress=progress,
        )
        for i, result in zip(todo, results, strict=True):
            try:
                write_run(folders[i], result, keys[i], features)
            except (OSError, ValueError) as error:  # of the file system; the other seeds' heads may still be written
                failures.append(error)
    if failures:
        raise failures[0]
    runs = [read_run(folder) for folder in folders]
    return Fitted(runs, frozenset(keys[i].id for i in todo), time.monotonic() - began)


def _lacking(folders: Sequence[Path]) -> tuple[list[int], list[Exception]]:
    """Places of the runs to train, and what keeps others from being read."""
    todo: list[int] = []
    failures: list[Exception] = []
    for place, folder in enumerate(folders):
        try:
            if whole_run(folder) is None:
                todo.append(place)
        except (PipelineError, heads.HeadsError) as error:
            failures.append(error)
    return todo, failures


def run_folders(
    artifacts: Artifacts, features: LabelledFeatures, method: str, seeds: Sequence[int], settings: FitSettings
) -> list[Path]:
    """Where the runs of the seeds lie, or will. A method that chooses chooses now, if it has not yet.

    :raises heads.HeadsError: if the method or a setting cannot be used.
    """
    choice = choice_for(artifacts, features, method, settings)
    keys = [_key(features, method, seed, settings, choice) for seed in _seeds(method, seeds, choice)]
    return [run_folder(artifacts, key, features.backbone) for key in keys]


def _seeds(method: str, seeds: Sequence[int], choice: heads.Choice | None) -> list[int]:
    """The seeds of the runs that these make: what trains nothing makes one, recorded with seed 0."""
    return [0] if heads.is_closed_form(method) or (choice is not None and choice.closed_form) else list(seeds)


def _key(
    features: LabelledFeatures, method: str, seed: int, settings: FitSettings, choice: heads.Choice | None
) -> RunKey:
    hyperparameters: dict[str, Any] = heads.hyperparameters(
        method,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.lr,
        schedule=settings.schedule,
    )
    if choice is not None:  # it keeps its last epoch, not its best: another run than the same settings spelled out
        hyperparameters |= {"epochs": choice.epochs, "chosen": True}
    return RunKey(
        dataset=features.dataset.id,
        fingerprint=features.fingerprint,
        method=method,
        head=heads.head_of(method, settings.head) if choice is None else choice.head,
        seed=seed,
        hyperparameters=tuple(sorted(hyperparameters.items())),
    )
