"""Stage three: what each prefix of an embedding knows of each level of the hierarchy.

A run's predictions and scores are stored beside it under their protocol and k and computed at most once: `compare`,
`reproduce` and a second `score` read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

from pipeline.evaluation.comparison import Entry
from pipeline.evaluation.embeddings import Scorable
from pipeline.evaluation.error_analysis import error_records
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.protocols import gallery_grid, leave_one_out, score_embeddings
from pipeline.workspace.kept_arrays import keep_arrays, read_arrays
from pipeline.workspace.records import keep, read_kept, write_record
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
    if kept is not None and (found := read_arrays(kept, Predictions.ARRAYS)) is not None:
        return Predictions.from_arrays(found)
    test, test_labels = scorable.split("test")
    if protocol == "leave-one-out":
        predictions = leave_one_out(test, test_labels, scale_dim=scorable.dims, k=k, device=device)
    else:
        train, train_labels = scorable.split("train")
        predictions = score_embeddings(
            train, train_labels, test, test_labels, scale_dim=scorable.dims, k=k, device=device
        )
    if kept is not None:
        keep_arrays(kept, predictions.to_arrays())
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


class _LevelScore(TypedDict):
    """What every reader of a kept score needs of a level."""

    level: int
    accuracy: float
    ci95: list[float]


class _PrefixScore(TypedDict):
    """The same of a prefix."""

    dim: int
    levels: list[_LevelScore]


class _ScoreRecord(TypedDict):
    """The same of a score."""

    protocol: str
    k: int
    gallery: int
    queries: int
    prefixes: list[_PrefixScore]


class _Scores(TypedDict):
    """The content of scores.json and galleries-*.json."""

    scores: list[_ScoreRecord]


def _read_records(path: Path | None) -> list[dict[str, Any]]:
    """Read stored records; none if the file is absent, damaged or unreadable (they are computed again)."""
    found = None if path is None else read_kept(path, _Scores, older=lambda records: {"scores": records})
    return [] if found is None else [dict(record) for record in found["scores"]]


def _write_records(path: Path, records: list[dict[str, Any]]) -> None:
    keep(lambda: write_record(path, {"scores": records}), path)
