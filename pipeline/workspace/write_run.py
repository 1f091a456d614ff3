"""Committing a trained head: one folder, by one rename, whole or absent."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from pathlib import Path

import cache
import heads
from pipeline.workspace.features import LabelledFeatures
from pipeline.workspace.records import marked, tell
from pipeline.workspace.runs import DAMAGED, HISTORY, RunKey, file_digest, is_run, whole_run

_DERIVED = ("scores.json", "answers-*", "galleries-*", "train-embeddings.*", "map-*")
"""What is computed again from a run and its features."""


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
    try:
        with cache.store.atomic_folder(folder) as partial:
            pl.DataFrame(result.history).write_parquet(partial / HISTORY)
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
                "files": {HISTORY: file_digest((partial / HISTORY).read_bytes())},
            }
            heads.save(result.head, partial, marked(record))
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
