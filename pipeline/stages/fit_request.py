"""What a fit is asked for, from the command line to the process that trains, and the runs that it makes.

A method that chooses what it trains (`joint` where neither head nor epochs are given) does so once per dataset,
features and settings, never per seed. The choice is part of the runs' ids and a small record in the method's folder
of runs. Deleting it costs seconds: it is made again, the same.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import heads
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.features import LabelledFeatures
from pipeline.workspace.records import keep, read_kept, write_record
from pipeline.workspace.runs import RunKey, run_folder


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
    """What the method chose, None if it chooses nothing, and of each run to be its key and where it lies, or will."""

    choice: heads.Choice | None
    keys: tuple[RunKey, ...]
    folders: tuple[Path, ...]


def plan(artifacts: Artifacts, features: LabelledFeatures, request: FitRequest, device: str = "auto") -> FitPlan:
    """Name the runs of a request. A method that chooses chooses now, if it has not yet.

    :raises heads.HeadsError: if the method or a setting cannot be used, or candidates cannot be trained.
    :raises PipelineError: if texts of the dataset were not embedded.
    :raises cache.CacheError: if the choice cannot be written.
    """
    choice, head = None, heads.head_of(request.method, request.head)
    hyperparameters: dict[str, Any] = heads.hyperparameters(request.method, **request.settings)
    if heads.is_chosen(request.method, request.head, request.epochs):
        choice = _choice(artifacts, features, request, hyperparameters, device)
        head = choice.head
        # it keeps its last epoch, not its best: another run than the same settings spelled out
        hyperparameters = {**hyperparameters, "epochs": choice.epochs, "chosen": True}
    nothing_trained = heads.is_closed_form(request.method) or (choice is not None and choice.closed_form)
    keys = tuple(
        RunKey(
            dataset=features.dataset.id,
            fingerprint=features.fingerprint,
            method=request.method,
            head=head,
            seed=seed,
            hyperparameters=tuple(sorted(hyperparameters.items())),
        )
        for seed in ((0,) if nothing_trained else request.seeds)
    )
    return FitPlan(choice, keys, tuple(run_folder(artifacts, key, features.backbone) for key in keys))


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
        validation=features.split("val") if len(features.dataset.split_rows("val")) else None,
        classes=features.dataset.hierarchy.sizes,
        device=device,
        batch_size=request.batch_size,
        lr=request.lr,
        schedule=request.schedule,
    )
    keep(lambda: write_record(path, choice.to_json()), path)
    return choice
