"""Stage three: what each prefix of an embedding knows of each level of the hierarchy.

A run's predictions and scores are stored beside it under their protocol and k and computed at most once: `compare`,
`reproduce` and a second `score` read them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import cache
from pipeline.evaluation.comparison import Entry
from pipeline.evaluation.embeddings import Scorable
from pipeline.evaluation.error_analysis import error_records
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.protocols import gallery_grid, leave_one_out, score_embeddings
from pipeline.workspace.run_names import names

PROTOCOLS = ("gallery", "leave-one-out")
SCORING = 3  # a change in how accuracy is measured gets another number: what was kept under an older one is not read


def score(scorable: Scorable, protocol: str, k: int = 5, *, device: str | None = None) -> dict[str, Any]:
    """The score record of one scorable under one protocol, as `--json` prints it.

    :param device: where neighbours are searched, by default the CPU; they are the same everywhere (`heads.knn`).
    """
    stored = stored_scores(scorable.folder)
    for record in stored:
        if (record["protocol"], record["k"]) == (protocol, k):
            return record
    predictions = predictions_of(scorable, protocol, k, device=device)
    record = {
        **scorable.facts,
        "scoring": SCORING,
        **predictions.to_dict(None if scorable.classify is None else scorable.classify()),
        "errors": error_records(predictions, scorable.hierarchy),
    }
    if scorable.folder is not None:
        _write_records(scorable.folder / "scores.json", [*stored, record])
    return record


def predictions_of(scorable: Scorable, protocol: str, k: int = 5, *, device: str | None = None) -> Predictions:
    """Predictions from nearest neighbours, under one of `PROTOCOLS`; `device` as for `score`."""
    kept = None if scorable.folder is None else scorable.folder / f"answers-{protocol}-k{k}-{SCORING}.npz"
    if kept is not None and (found := _read_answers(kept)) is not None:
        return found
    test, test_labels = scorable.split("test")
    if protocol == "leave-one-out":
        predictions = leave_one_out(test, test_labels, scale_dim=scorable.dims, k=k, device=device)
    else:
        train, train_labels = scorable.split("train")
        predictions = score_embeddings(
            train, train_labels, test, test_labels, scale_dim=scorable.dims, k=k, device=device
        )
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with cache.atomic_file(kept) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **predictions.to_arrays())  # type: ignore[arg-type]
    return predictions


def score_grid(scorable: Scorable, sizes: Sequence[int] | None, k: int = 5) -> list[dict[str, Any]]:
    """The 2 x 2: score records of galleries of these sizes, drawn from training rows and from held-out rows.

    :param sizes: by default `protocols.grid_sizes`.
    :raises PipelineError: if a size is more than there are rows.
    """
    spelled = "all" if sizes is None else "-".join(map(str, sorted(set(sizes))))
    kept = None if scorable.folder is None else scorable.folder / f"galleries-{spelled}-k{k}-{SCORING}.json"
    stored = _read_records(kept)
    if stored:
        return stored
    train, train_labels = scorable.split("train")
    test, test_labels = scorable.split("test")
    cells = gallery_grid(train, train_labels, test, test_labels, sizes=sizes, scale_dim=scorable.dims, k=k)
    records = [{**scorable.facts, **cell.to_dict()} for cell in cells]
    if kept is not None:
        _write_records(kept, records)
    return records


def entries(scorables: Sequence[Scorable], protocol: str, k: int = 5) -> Iterator[Entry]:
    """Predictions of every run, named so that runs are paired over seeds, for comparisons and claims."""
    for name, scorable in zip(names([scorable.facts for scorable in scorables]), scorables, strict=True):
        yield Entry(name, scorable.facts["seed"], predictions_of(scorable, protocol, k))


def stored_scores(folder: Path | None) -> list[dict[str, Any]]:
    """The scores kept in a run's folder that today's code would give too."""
    found = _read_records(None if folder is None else folder / "scores.json")
    return [record for record in found if record.get("scoring") == SCORING]


def _read_records(path: Path | None) -> list[dict[str, Any]]:
    """Read stored records; none if the file is absent or unreadable (they are computed again)."""
    if path is None:
        return []
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return records if isinstance(records, list) else []


def _write_records(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with cache.atomic_file(path) as partial:
        partial.write_text(json.dumps(records, indent=1), encoding="utf-8")


def _read_answers(path: Path) -> Predictions | None:
    """Read stored predictions; None if there are none, or they are damaged (they are computed again)."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Predictions.from_arrays(arrays)
    except Exception:  # a flipped bit surfaces as whatever zip, zlib, numpy or JSON make of it
        return None
