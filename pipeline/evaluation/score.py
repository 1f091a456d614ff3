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
from pipeline.evaluation.error_analysis import errors_of
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.scores import Score, method_names
from pipeline.workspace.kept_arrays import keep_arrays, read_arrays
from pipeline.workspace.records import DamagedError, check_place, keep, place_of, read_kept, tell, write_record

PROTOCOLS = ("gallery", "leave-one-out")
SCORING = 3  # a change in how accuracy is measured gets another number: what was kept under an older one is not read
SUMMING_UP = 4  # the same for what is computed beside the predictions, such as the accuracy of a head's own classifiers


def score(scorable: Scorable, protocol: str, k: int = 5, *, device: str | None = None) -> Score:
    """The scores of one scorable under one protocol.

    :param device: where neighbours are searched, by default the CPU; they are the same everywhere (`heads.knn`).
    """
    stored = stored_scores(scorable.folder)
    for record in stored:
        if (record.protocol, record.k) == (protocol, k):
            return record
    predictions = predictions_of(scorable, protocol, k, device=device)
    record = predictions.score(
        scorable.identity,
        None if scorable.classify is None else scorable.classify(),
        scoring=SUMMING_UP,
        errors=errors_of(predictions, scorable.hierarchy),
    )
    if scorable.folder is not None:
        _write_scores(scorable.folder / "scores.json", [*stored, record])
    return record


def predictions_of(scorable: Scorable, protocol: str, k: int = 5, *, device: str | None = None) -> Predictions:
    """Predictions from nearest neighbours, under one of `PROTOCOLS`; `device` as for `score`."""
    if scorable.folder is not None and (found := kept_predictions(scorable.folder, protocol, k)) is not None:
        return found
    from pipeline.evaluation.protocols import classified, leave_one_out, score_embeddings  # what is kept needs no torch

    test, test_labels = scorable.split("test")
    if scorable.predict is not None:
        predictions = classified(scorable.predict(), test_labels, scorable.dims[-1], len(scorable.split("train")[1]), k)
    elif protocol == "leave-one-out":
        predictions = leave_one_out(test, test_labels, scale_dim=scorable.dims, k=k, device=device)
    else:
        train, train_labels = scorable.split("train")
        predictions = score_embeddings(
            train, train_labels, test, test_labels, scale_dim=scorable.dims, k=k, device=device
        )
    if scorable.folder is not None:
        keep_arrays(_kept_at(scorable.folder, protocol, k), predictions.to_arrays())
    return predictions


def kept_predictions(folder: Path, protocol: str, k: int = 5) -> Predictions | None:
    """The predictions that scoring left in a run's folder, None if it was not scored so."""
    found = read_arrays(_kept_at(folder, protocol, k), Predictions.ARRAYS)
    return None if found is None else Predictions.from_arrays(found)


def _kept_at(folder: Path, protocol: str, k: int) -> Path:
    return folder / f"answers-{protocol}-k{k}-{SCORING}.npz"


def score_grid(scorable: Scorable, sizes: Sequence[int] | None, k: int = 5) -> list[Score]:
    """The 2 x 2: scores with galleries of these sizes, drawn from training rows and from held-out rows.

    :param sizes: by default `protocols.grid_sizes`, at the shortest prefix and in full: what page and claims show.
    :raises PipelineError: if a size is more than there are rows.
    """
    spelled = "all" if sizes is None else "-".join(map(str, sorted(set(sizes))))
    kept = None if scorable.folder is None else scorable.folder / f"galleries-{spelled}-k{k}-{SCORING}.json"
    stored = _read_scores(kept)
    if stored:
        return stored
    from pipeline.evaluation.protocols import gallery_grid

    train, train_labels = scorable.split("train")
    test, test_labels = scorable.split("test")
    dims = scorable.dims if sizes is not None else tuple(dict.fromkeys((scorable.dims[0], scorable.dims[-1])))
    cells = gallery_grid(train, train_labels, test, test_labels, sizes=sizes, scale_dim=dims, k=k)
    scores = [cell.score(scorable.identity) for cell in cells]
    if kept is not None:
        _write_scores(kept, scores)
    return scores


def entries(scorables: Sequence[Scorable], protocol: str, k: int = 5) -> Iterator[Entry]:
    """Predictions of every scorable, named so that runs are paired over seeds, for comparisons and claims."""
    identities = [scorable.identity for scorable in scorables]
    for name, scorable in zip(method_names(identities), scorables, strict=True):
        identity = scorable.identity
        predictions = predictions_of(scorable, protocol, k)
        yield Entry(name, identity.paired_seed, predictions, identity.untrained, identity.closed_form)


def stored_scores(folder: Path | None) -> list[Score]:
    """The scores kept in a run's folder that today's code would give too."""
    return [score for score in _read_scores(folder and folder / "scores.json") if score.scoring == SUMMING_UP]


class _Scores(TypedDict):
    scores: list[dict[str, Any]]


class _Kept(_Scores, total=False):
    """The content of scores.json and galleries-*.json; `place` is where it belongs."""

    place: str


def _read_scores(path: Path | None) -> list[Score]:
    """Read stored scores; none if the file is absent, damaged or unreadable (they are computed again)."""
    found = None if path is None else read_kept(path, _Kept, older=lambda records: {"scores": records})
    if path is None or found is None:
        return []
    try:
        check_place(path, found.get("place", ""))
        return [Score.from_json(record) for record in found["scores"]]
    except DamagedError as error:
        tell(f"{error}; computed again")
        return []
    except TypeError:  # made before a score held all that it does today: computed again
        return []


def _write_scores(path: Path, scores: Sequence[Score]) -> None:
    content = {"place": place_of(path), "scores": [score.to_json() for score in scores]}
    keep(lambda: write_record(path, content), path)
