"""Runs on disk: what identifies one, where it lies, how it is written and found again.

A run's id is the content address of all that determines its head, so a run that exists is never trained again, and a
label changed in the data, an edited checkpoint or another learning rate is another run. A run's folder is committed by
one rename: it is whole or absent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cache
import heads
from pipeline.errors import PipelineError
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.features import LabelledFeatures


@dataclass(frozen=True)
class RunKey:
    """All that determines a trained head."""

    dataset: str
    fingerprint: str
    method: str
    head: str
    seed: int
    hyperparameters: tuple[tuple[str, Any], ...]

    @property
    def id(self) -> str:
        """Content address, 12 hex digits."""
        spelled = json.dumps(
            [self.dataset, self.fingerprint, self.method, self.head, self.seed, list(self.hyperparameters)]
        )
        return hashlib.blake2b(spelled.encode(), digest_size=6).hexdigest()


@dataclass(frozen=True)
class Run:
    """A trained head on disk: its folder and its config.json's record."""

    folder: Path
    record: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The run id, which is its folder's name."""
        return self.folder.name

    @property
    def method(self) -> str:
        """Name of the training method."""
        return str(self.record["method"])

    @property
    def seed(self) -> int:
        """The seed of initialisation, sampling and dropout."""
        return int(self.record["seed"])

    def load(self) -> heads.FractalHead:
        """The trained head.

        :raises heads.HeadsError: if the checkpoint is damaged.
        """
        return heads.load(self.folder)

    def summary(self) -> dict[str, Any]:
        """The run as `--json` prints it."""
        names = ("dataset", "backbone", "layer", "method", "head", "seed", "seconds", "parameters", "best_epoch")
        return {"id": self.id, "path": str(self.folder), **{name: self.record[name] for name in names}}


def run_folder(artifacts: Artifacts, key: RunKey, backbone: str) -> Path:
    """Where the run lies."""
    return artifacts.runs / key.dataset / backbone / key.method / key.id


def write_run(folder: Path, result: heads.FitResult, key: RunKey, features: LabelledFeatures) -> None:
    """Commits a trained head with all that is needed to use and to judge it later.

    A run that another process committed meanwhile stays: its id says that it is the same.

    :raises cache.CacheError: if the file system refuses it.
    """
    import polars as pl

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
        "dims": list(result.head.dims),
        "levels": list(features.dataset.levels),
        "classes": [list(names) for names in features.dataset.hierarchy.classes],
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with cache.atomic_folder(folder) as partial:
            heads.save(result.head, partial, record)
            pl.DataFrame(result.history).write_parquet(partial / "history.parquet")
    except cache.CacheError:
        if not is_run(folder):
            raise


def is_run(folder: Path) -> bool:
    """Whether a whole run lies there: what a killed fit left has a name that begins with a dot."""
    return (folder / "config.json").is_file() and folder.name[0] != "."


def read_run(folder: Path) -> Run:
    """Reads a run's record; the head itself is loaded when asked for.

    :raises PipelineError: if config.json is missing or damaged.
    """
    path = folder / "config.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))["record"]
        return Run(folder, record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(
            f"{path} is missing or damaged ({error})", f"delete {folder} and run `pipeline fit-head` again"
        ) from error


def all_runs(artifacts: Artifacts) -> Iterator[Run]:
    """Every run below the artifacts folder, by dataset, backbone, method, seed and id."""
    found = [read_run(folder) for folder in _run_folders(artifacts.runs, "*/*/*/*")]
    yield from sorted(found, key=lambda run: (*run.folder.parts[:-1], run.seed, run.id))


def _run_folders(root: Path, pattern: str) -> list[Path]:
    return [folder for folder in sorted(root.glob(pattern)) if is_run(folder)]


def runs_of(artifacts: Artifacts, features: LabelledFeatures, methods: Sequence[str] | None = None) -> list[Run]:
    """The runs trained on these features, by method (as listed, else as in the table of methods) and seed."""
    found = runs_of_layers(artifacts, features, methods)
    return [run for run in found if run.record["fingerprint"] == features.fingerprint]


def runs_of_layers(artifacts: Artifacts, features: LabelledFeatures, methods: Sequence[str] | None = None) -> list[Run]:
    """The same with those trained on any other features of this dataset and backbone, such as another layer's."""
    order = list(methods or heads.METHODS)
    found = [
        read_run(folder) for folder in _run_folders(artifacts.runs / features.dataset.id / features.backbone, "*/*")
    ]
    return sorted(
        (run for run in found if run.method in order),
        key=lambda run: (order.index(run.method), run.record["head"], run.seed, run.id),
    )


def runs_by_id(artifacts: Artifacts, ids: Sequence[str]) -> list[Run]:
    """The runs that the ids name; a unique beginning of an id, or a run's folder, will do.

    :raises PipelineError: if an id names no run or several.
    """
    existing = {run.id: run for run in all_runs(artifacts)}
    found = []
    for wanted in ids:
        matches = [run for id_, run in existing.items() if id_.startswith(Path(wanted).name)]
        if len(matches) != 1:
            which = f": {', '.join(run.id for run in matches)}" if matches else ""
            raise PipelineError(
                f"{wanted!r} names {len(matches)} runs in {artifacts.runs}{which}",
                "see `pipeline runs list` for the ids",
            )
        found.append(matches[0])
    return found
