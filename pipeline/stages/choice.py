"""What a method that chooses trains on this data: chosen once, kept beside its runs, and part of their ids.

The choice depends on the dataset, the features and the settings, never on a seed, so it is one small JSON file in the
method's folder of runs. Deleting it costs seconds: it is made again, the same.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import heads
from cache.store import atomic_file
from pipeline.stages.settings import FitSettings
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.features import LabelledFeatures


def choice_for(
    artifacts: Artifacts, features: LabelledFeatures, method: str, settings: FitSettings, device: str = "auto"
) -> heads.Choice | None:
    """The choice of a method where neither head nor epochs are given; None for a method that chooses nothing.

    :raises heads.HeadsError: if the method or a setting cannot be used, or candidates cannot be trained.
    :raises PipelineError: if texts of the dataset were not embedded.
    :raises cache.CacheError: if the file cannot be written.
    """
    if not heads.is_chosen(method, settings.head, settings.epochs):
        return None
    turned: dict[str, Any] = {"batch_size": settings.batch_size, "lr": settings.lr, "schedule": settings.schedule}
    identity = json.dumps([features.fingerprint, heads.hyperparameters(method, **turned)])
    name = hashlib.blake2b(identity.encode(), digest_size=6).hexdigest()
    path = artifacts.runs / features.dataset.id / features.backbone / method / f"choice-{name}.json"
    kept = _read(path)
    if kept is not None:
        return kept
    validation = features.split("val") if len(features.dataset.split_rows("val")) else None
    choice = heads.choose(
        *features.split("train"),
        method=method,
        validation=validation,
        classes=features.dataset.hierarchy.sizes,
        device=device,
        **turned,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(choice.to_json(), indent=1) + "\n", encoding="utf-8")
    return choice


def _read(path: Path) -> heads.Choice | None:
    """The choice kept in a file; None where there is none, or none that can be read: it is made again."""
    try:
        return heads.Choice.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
